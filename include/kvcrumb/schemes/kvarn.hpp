// SPDX-License-Identifier: Apache-2.0
//! @file KVarN: rotated tiles whose variance is evened out on both axes, then affine codes.
#pragma once

#include "kvcrumb/kv_scheme.hpp"
#include "kvcrumb/scheme/variance_normalized.hpp"

namespace kvcrumb::inline v0::schemes {

//! KVarN (arXiv 2606.03458; github.com/huawei-csl/KVarN): Hadamard rotation, factors of tokens and channels
//! over tiles of `Group` tokens, affine codes of keys per channel and of values per token. The published
//! preset has 4 bits for keys and 2 for values. Their vLLM backend keeps the first 128 tokens exact: pass
//! prefix<128>. Bits per value: keys KeyBits + 32 / Group + 16 / head_dim, values ValueBits + 16 / Group + 32
//! / head_dim.
template <int KeyBits = 4, int ValueBits = 2, int Group = 128, isolation Isolation = no_isolation,
          layout Layout = fragment>
using kvarn_type = kv_scheme<variance_normalized_keys<KeyBits, Group, hadamard<>, Layout>,
                             variance_normalized_values<ValueBits, Group, hadamard<>, Layout>, Isolation>;

template <int KeyBits = 4, int ValueBits = 2, int Group = 128, isolation Isolation = no_isolation,
          layout Layout = fragment>
constexpr kvarn_type<KeyBits, ValueBits, Group, Isolation, Layout> kvarn() noexcept {
  bool const published = KeyBits == 4 && ValueBits == 2, narrow = KeyBits == 2 && ValueBits == 2;
  return {.name = published ? "kvarn_k4v2" : narrow ? "kvarn_k2v2" : "kvarn", .flush = {0, Group}};
}

}  // namespace kvcrumb::inline v0::schemes
