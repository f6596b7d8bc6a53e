// SPDX-License-Identifier: Apache-2.0
//! @file OScaR: keys normalized per token over all heads, two bits, both sides rotated.
#pragma once

#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/kv_scheme.hpp"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/scheme/token_normalized.hpp"
#include "kvcrumb/transform/hadamard.hpp"

namespace kvcrumb::inline v0::schemes {

//! OScaR (arXiv 2605.19660; github.com/ZunhaiSu/OScaR-KV-Quant): Hadamard rotation; keys divided by the norm
//! of their token over all kv heads, then affine codes with a rounded zero point per channel and `Group`
//! tokens; values with the same codes per token and `Group` channels. Blocks of 128 tokens.
//! Bits per value: keys Bits + 32 / Group + 16 / head_dim, values Bits + 32 / min(Group, head_dim).
template <int Bits = 2, int Group = 32, layout Layout = fragment>
using oscar_type =
    kv_scheme<token_normalized<composed<affine<Bits, float16, rotatekv_convention>, per_channel<Group>,
                                        hadamard<>, Layout>>,
              composed<affine<Bits, float16, rotatekv_convention>, per_token<Group>, hadamard<>, Layout>>;

template <int Bits = 2, int Group = 32, layout Layout = fragment>
constexpr oscar_type<Bits, Group, Layout> oscar() noexcept {
  return {.name = Bits == 2 ? "oscar2" : "oscar", .flush = {0, 128}};
}

}  // namespace kvcrumb::inline v0::schemes
