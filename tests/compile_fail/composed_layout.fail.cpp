// SPDX-License-Identifier: Apache-2.0
//! @file The fourth argument of composed is a layout.
// expect: layout
// expect: constraint
#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/codec/codebook.hpp"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/transform/hadamard.hpp"

using namespace kvcrumb;

composed<affine<2>, per_row, identity, identity> s;
