// SPDX-License-Identifier: Apache-2.0
//! @file The second argument of composed is a grouping.
// expect: grouping
// expect: constraint
#include "kvcrumb/codec/affine.hpp"
#include "kvcrumb/codec/codebook.hpp"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/transform/hadamard.hpp"

using namespace kvcrumb;

composed<affine<2>, hadamard<>> s;
