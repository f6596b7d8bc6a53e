// SPDX-License-Identifier: Apache-2.0
//! @file All reference quantizers, one plain function per published method.
#pragma once

#include "kvcrumb/reference/codebooks.hpp"
#include "kvcrumb/reference/quantize_ggml.hpp"
#include "kvcrumb/reference/quantize_kivi.hpp"
#include "kvcrumb/reference/quantize_nf4.hpp"
#include "kvcrumb/reference/quantize_outward.hpp"
#include "kvcrumb/reference/quantize_qserve.hpp"
