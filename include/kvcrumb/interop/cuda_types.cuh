// SPDX-License-Identifier: Apache-2.0
//! @file Conversions between CUDA's 16- and 8-bit floats and the library's, bit for bit.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "kvcrumb/numeric/storage_float.hpp"

namespace kvcrumb::inline v0 {

//! The same bits as the other library's type. No rounding.
KVCRUMB_API float16 from_cuda(__half x) noexcept { return {__half_as_ushort(x)}; }
KVCRUMB_API bfloat16 from_cuda(__nv_bfloat16 x) noexcept { return {__bfloat16_as_ushort(x)}; }
KVCRUMB_API float8_e4m3 from_cuda(__nv_fp8_e4m3 x) noexcept { return {x.__x}; }

KVCRUMB_API __half to_cuda(float16 x) noexcept { return __ushort_as_half(x.bits); }
KVCRUMB_API __nv_bfloat16 to_cuda(bfloat16 x) noexcept { return __ushort_as_bfloat16(x.bits); }
KVCRUMB_API __nv_fp8_e4m3 to_cuda(float8_e4m3 x) noexcept {
  __nv_fp8_e4m3 y;
  y.__x = x.bits;
  return y;
}

//! Arrays of CUDA floats as arrays of the library's, for views of rows. The layouts are equal.
KVCRUMB_API float16 const* from_cuda(__half const* p) noexcept { return reinterpret_cast<float16 const*>(p); }
KVCRUMB_API bfloat16 const* from_cuda(__nv_bfloat16 const* p) noexcept {
  return reinterpret_cast<bfloat16 const*>(p);
}

static_assert(sizeof(__half) == sizeof(float16) && sizeof(__nv_bfloat16) == sizeof(bfloat16) &&
              sizeof(__nv_fp8_e4m3) == sizeof(float8_e4m3));

}  // namespace kvcrumb::inline v0
