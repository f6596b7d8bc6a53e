// SPDX-License-Identifier: Apache-2.0
//! @file TurboQuant: rotated Lloyd-Max codes with the length of the row, and the variant for inner products.
#pragma once

#include "kvcrumb/codec/codebook.hpp"
#include "kvcrumb/kv_scheme.hpp"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/scheme/norm_corrected.hpp"
#include "kvcrumb/scheme/residual_sketch.hpp"
#include "kvcrumb/transform/random_signs.hpp"

namespace kvcrumb::inline v0 {

//! TurboQuant_mse (arXiv 2504.19874, algorithm 1) for one side: randomized Hadamard rotation, Lloyd-Max codes
//! of the normal distribution, |x| / sqrt(D) in fp16. Bits + 16 / D bits. Mean squared error of a row of
//! random direction: 0.363, 0.117, 0.0345, 0.0095 |x|^2 at 1 to 4 bits (D a power of two, at least 64).
template <int Bits, layout Layout = fragment>
using turboquant_mse = composed<lloyd_max<Bits>, per_row, random_signs<hadamard<>>, Layout>;

//! TurboQuant_prod (algorithm 2): Bits - 1 bits of codes and one sign a channel. Bits + 32 / D bits.
template <int Bits, layout Layout = fragment>
using turboquant_product = residual_sketch<turboquant_mse<Bits - 1, Layout>>;

}  // namespace kvcrumb::inline v0

namespace kvcrumb::inline v0::schemes {

//! TurboQuant as engines run it (vLLM's *_nc): codes that minimize the squared error on both sides, scales
//! corrected to keep lengths. Row-independent; Bits + 16 / D bits.
template <int Bits, layout Layout = fragment>
using turboquant_type =
    kv_scheme<norm_corrected<turboquant_mse<Bits, Layout>>, norm_corrected<turboquant_mse<Bits, Layout>>>;

template <int Bits, layout Layout = fragment>
constexpr turboquant_type<Bits, Layout> turboquant() noexcept {
  return {.name = Bits == 2   ? "turboquant2"
                  : Bits == 3 ? "turboquant3"
                  : Bits == 4 ? "turboquant4"
                              : "turboquant"};
}

//! TurboQuant as published for attention: keys for inner products, values for squared error. Row-independent;
//! Bits + 32 / D bits a key value, Bits + 16 / D a value. The projection has head_dim rows and is the
//! caller's (fill_projection; the paper's is Gaussian, orthogonal rows have less variance); one may serve all
//! layers.
template <int Bits, layout Layout = fragment>
using turboquant_prod_type = kv_scheme<turboquant_product<Bits, Layout>, turboquant_mse<Bits, Layout>>;

template <int Bits, layout Layout = fragment>
constexpr turboquant_prod_type<Bits, Layout> turboquant_prod(sketch_projection const& projection) noexcept {
  return {.name = "turboquant_prod", .key = {.projection = projection}};
}

}  // namespace kvcrumb::inline v0::schemes
