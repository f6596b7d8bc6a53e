// SPDX-License-Identifier: Apache-2.0
//! @file All of reference/: slow, plain, double precision, independent of the rest of the library.
#pragma once

#include "kvcrumb/reference/attention.hpp"
#include "kvcrumb/reference/codebooks.hpp"
#include "kvcrumb/reference/hadamard.hpp"
#include "kvcrumb/reference/metrics.hpp"
#include "kvcrumb/reference/outlier_tokens.hpp"
#include "kvcrumb/reference/quantizers.hpp"
#include "kvcrumb/reference/storage.hpp"
