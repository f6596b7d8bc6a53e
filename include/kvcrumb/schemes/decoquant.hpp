// SPDX-License-Identifier: Apache-2.0
//! @file DecoQuant (arXiv 2405.12591): the large factor of a decomposition is coded, the small one is exact.
#pragma once

#include "kvcrumb/kv_scheme.hpp"
#include "kvcrumb/scheme/factored.hpp"

namespace kvcrumb::inline v0::schemes {

//! DecoQuant on blocks of `Group` tokens and `Width` neighbouring channels, keys and values alike. Bits + 16
//! / D + 16 Width^2 / (Group D) bits: 4.1875 for 4 bits, 128 tokens, 8 channels and D = 128. The paper
//! decomposes a prompt at once and then every 1k tokens; a tile holds at most 128.
template <int Bits, int Group = 128, int Width = 8, layout Layout = fragment>
using decoquant_type = kv_scheme<factored<Bits, Group, Width, Layout>, factored<Bits, Group, Width, Layout>>;
template <int Bits = 4, int Group = 128, int Width = 8, layout Layout = fragment>
constexpr decoquant_type<Bits, Group, Width, Layout> decoquant() noexcept {
  return {.name = Bits == 2   ? "decoquant2"
                  : Bits == 4 ? "decoquant4"
                  : Bits == 8 ? "decoquant8"
                              : "decoquant",
          .flush = {0, Group}};
}

}  // namespace kvcrumb::inline v0::schemes
