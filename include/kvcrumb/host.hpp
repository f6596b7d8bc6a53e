// SPDX-License-Identifier: Apache-2.0
//! @file The host kernels: attention and encoding with vector instructions. Not part of kvcrumb.hpp, because they
//! cost a compiler about a second, and not for nvcc: compile them in a file of your host compiler.
#pragma once

#include "kvcrumb/host/attend.hpp"
#include "kvcrumb/host/encode.hpp"
#include "kvcrumb/host/encode_scores.hpp"
#include "kvcrumb/host/vector_encoder.hpp"
#include "kvcrumb/host/work_split.hpp"
