// SPDX-License-Identifier: Apache-2.0
//! @file The first argument of composed is a codec.
// expect: codec
// expect: constraint
#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/codec/codebook.hpp"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/transform/hadamard.hpp"

using namespace kvcrumb;

composed<nf4_table, per_row> s;
