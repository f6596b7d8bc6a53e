// SPDX-License-Identifier: Apache-2.0
//! @file Slots of a group-tiled scheme cannot be cleared alone.
#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/codec/codebook.hpp"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/transform/hadamard.hpp"

using namespace kvcrumb;

void clear(std::byte* section) {
  composed<affine<2>, per_token<32>>{}.clear(side::key, {128, 128}, 0, 1, section);
}
