// SPDX-License-Identifier: Apache-2.0
//! @file The umbrella plus everything that needs a CUDA compiler.
#pragma once

#include "kvcrumb/device/append.cuh"
#include "kvcrumb/device/decode.cuh"
#include "kvcrumb/device/encode.cuh"
#include "kvcrumb/device/merge_states.cuh"
#include "kvcrumb/interop/cuda_types.cuh"
#include "kvcrumb/kvcrumb.hpp"
