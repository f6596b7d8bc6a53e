// SPDX-License-Identifier: Apache-2.0
//! @file The named systems: one alias and one preset each; docs/schemes.md has their papers and bits.
#pragma once

#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/codec/codebook.hpp"
#include "kvcrumb/codec/symmetric.hpp"
#include "kvcrumb/kv_scheme.hpp"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/transform/hadamard.hpp"
#include "kvcrumb/transform/mean_center.hpp"

namespace kvcrumb::inline v0::schemes {

//! KIVI (arXiv 2402.02750): asymmetric codes in fp16 arithmetic, keys per channel over `Group` tokens, values
//! per token over `Group` channels. Bits 2 or 4; all-in bits = Bits + 32 / Group. As published, all 128
//! tokens of the window are encoded when it is full; the paper's values leave their window one by one
//! instead.
template <int Bits, int Group = 32, layout Layout = fragment>
using kivi_type =
    kv_scheme<composed<affine<Bits, float16, kivi_convention>, per_channel<Group>, identity, Layout>,
              composed<affine<Bits, float16, kivi_convention>, per_token<Group>, identity, Layout>>;

template <int Bits, int Group = 32, layout Layout = fragment>
constexpr kivi_type<Bits, Group, Layout> kivi() noexcept {
  return {.name = Bits == 2 ? "kivi2" : Bits == 4 ? "kivi4" : "kivi", .flush = {0, 128}};
}

//! OTT, outlier-token tracing (arXiv 2505.10938): KIVI's codes with the `Pool` tokens of smallest key L1 norm
//! kept exact and masked, 32 auxiliary rows, 32 recent tokens. Switch a layer off with isolate.capacity = 0
//! (the paper does for the first two). 2.25 bits + pool at Group 128.
template <int Bits, int Group = 128, layout Layout = fragment>
using ott_type =
    kv_scheme<composed<affine<Bits, float16, kivi_convention>, per_channel<Group>, identity, Layout>,
              composed<affine<Bits, float16, kivi_convention>, per_token<Group>, identity, Layout>,
              token_pool<l1_score>>;

template <int Bits = 2, int Group = 128, layout Layout = fragment>
constexpr ott_type<Bits, Group, Layout> ott(int pool = 3) noexcept {
  return {.name = Bits == 2 ? "ott2" : "ott", .flush = {32, Group}, .isolate = {.capacity = pool}};
}

//! SinkQ: OTT's earlier name (openreview bJ33TvbJW0).
template <int Group = 128, layout Layout = fragment>
constexpr ott_type<2, Group, Layout> sinkq(int pool = 3) noexcept {
  return ott<2, Group, Layout>(pool);
}

//! NQKV (arXiv 2505.16210): NF4 with the absolute maximum of 256 consecutive channels of a token, across
//! heads. Row-independent; 4 + 16 / min(256, head_dim) bits, because every head keeps its copy of a shared
//! scale.
template <layout Layout = fragment>
using nqkv4_type = kv_scheme<composed<nf4<>, per_token<256, head_crossing::across_heads>, identity, Layout>,
                             composed<nf4<>, per_token<256, head_crossing::across_heads>, identity, Layout>>;
template <layout Layout = fragment>
constexpr nqkv4_type<Layout> nqkv4() noexcept {
  return {.name = "nqkv4"};
}

//! QServe KV4 (arXiv 2405.04532): per token and head, fp16 scale and unrounded zero point. 4 + 32 / head_dim
//! bits.
template <layout Layout = fragment>
using qserve4_type = kv_scheme<composed<affine<4, float16, qserve_convention>, per_row, identity, Layout>,
                               composed<affine<4, float16, qserve_convention>, per_row, identity, Layout>>;
template <layout Layout = fragment>
constexpr qserve4_type<Layout> qserve4() noexcept {
  return {.name = "qserve4"};
}

//! ggml's q8_0 blocks (34 bytes per 32 values, 8.5 bits), byte for byte.
using q8_0_type = kv_scheme<
    composed<symmetric<8, float16, symmetric_rule::ggml_q8_0>, per_token<32>, identity, ggml_block>,
    composed<symmetric<8, float16, symmetric_rule::ggml_q8_0>, per_token<32>, identity, ggml_block>>;
constexpr q8_0_type q8_0() noexcept { return {.name = "q8_0"}; }

//! ggml's q4_0 blocks (18 bytes per 32 values, 4.5 bits), byte for byte.
using q4_0_type = kv_scheme<
    composed<symmetric<4, float16, symmetric_rule::ggml_q4_0>, per_token<32>, identity, ggml_block>,
    composed<symmetric<4, float16, symmetric_rule::ggml_q4_0>, per_token<32>, identity, ggml_block>>;
constexpr q4_0_type q4_0() noexcept { return {.name = "q4_0"}; }

//! The baseline: every row stays fp16 (16 bits, exact).
using fp16_type = kv_scheme<composed<raw<float16>, per_row, identity, linear>,
                            composed<raw<float16>, per_row, identity, linear>>;
constexpr fp16_type fp16() noexcept { return {.name = "fp16", .flush = {0, 0}}; }

//! fp8: e4m3 values without scales, 8 bits, saturating at 448 (vLLM, TensorRT-LLM with unit scales).
using fp8_type = kv_scheme<composed<raw<float8_e4m3>, per_row, identity, fragment>,
                           composed<raw<float8_e4m3>, per_row, identity, fragment>>;
constexpr fp8_type fp8() noexcept { return {.name = "fp8"}; }

}  // namespace kvcrumb::inline v0::schemes
