// SPDX-License-Identifier: Apache-2.0
//! @file SKVQ (arXiv 2405.06219): clipped groups of permuted channels, sinks and a window.
#pragma once

#include "kvcrumb/kv_scheme.hpp"
#include "kvcrumb/scheme/clipped_groups.hpp"

namespace kvcrumb::inline v0::schemes {

//! SKVQ (arXiv 2405.06219): KeyLevels and ValueLevels are the largest codes (3: 2 bits; 2: three values). The
//! first 5 tokens and the last 128 stay exact. Give the plans of `calibrate_skvq`; without them groups are
//! 128 neighbouring channels and the clip factor is 0.96.
template <int KeyLevels, int ValueLevels, code_basis Basis = code_basis::stored>
using skvq_type = kv_scheme<clipped_groups<KeyLevels, Basis>, clipped_groups<ValueLevels, Basis>, prefix<5>>;

//! 2-bit keys and values; 2 + 16 groups / D bits.
template <code_basis Basis = code_basis::stored>
constexpr skvq_type<3, 3, Basis> skvq2(channel_plan keys = {}, channel_plan values = {}) noexcept {
  return {.name = "skvq2", .flush = {128, 1}, .key = {.plan = keys}, .value = {.plan = values}};
}
//! 2-bit keys, three-valued values ("1.5 bits"; 1.6 as packed); (2 + 1.6) / 2 + 16 groups / D bits.
template <code_basis Basis = code_basis::stored>
constexpr skvq_type<3, 2, Basis> skvq_k2v15(channel_plan keys = {}, channel_plan values = {}) noexcept {
  return {.name = "skvq_k2v15", .flush = {128, 1}, .key = {.plan = keys}, .value = {.plan = values}};
}

}  // namespace kvcrumb::inline v0::schemes
