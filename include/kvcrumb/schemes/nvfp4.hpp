// SPDX-License-Identifier: Apache-2.0
//! @file NVFP4: E2M1 codes, an e4m3 scale per 16 channels and a binary32 scale per tensor.
#pragma once

#include "kvcrumb/codec/scaled_e2m1.hpp"
#include "kvcrumb/schemes.hpp"

namespace kvcrumb::inline v0::schemes {

//! Keys and values in NVFP4, row-independent, 4 + 8 / 16 = 4.5 bits and 32 bits for each tensor, which the
//! caller keeps as part of the scheme (flashinfer's fp4_kv_quantization; codes and scales in this library's
//! layouts, not in flashinfer's).
template <tensor_scale Form = tensor_scale::decode, layout Layout = fragment>
using nvfp4_type = kv_scheme<composed<scaled_e2m1<Form>, per_token<16>, identity, Layout>,
                             composed<scaled_e2m1<Form>, per_token<16>, identity, Layout>>;

//! The scale of a tensor whose largest magnitude is `absmax`, in the form wanted: 448 / absmax or its
//! inverse; 1 where that is not a positive finite number (a tensor of zeros).
template <tensor_scale Form = tensor_scale::decode>
KVCRUMB_API float nvfp4_scale(float absmax) noexcept {
  if (!is_positive_bits(absmax)) return 1.0f;
  scaled_e2m1_table table;
  table.global = Form == tensor_scale::decode ? div_rn(absmax, 448.0f) : div_rn(448.0f, absmax);
  return table.is_valid() ? table.global : 1.0f;
}

//! Scales of the tensors in the form of `Form`; 1 leaves them out. supports() refuses what is not positive
//! and finite.
template <tensor_scale Form = tensor_scale::decode, layout Layout = fragment>
constexpr nvfp4_type<Form, Layout> nvfp4(float key_scale = 1.0f, float value_scale = 1.0f) noexcept {
  nvfp4_type<Form, Layout> scheme{.name = "nvfp4"};
  scheme.key.codec.table.global = key_scale;
  scheme.value.codec.table.global = value_scale;
  return scheme;
}

}  // namespace kvcrumb::inline v0::schemes
