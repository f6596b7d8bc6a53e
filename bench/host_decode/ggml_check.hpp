// SPDX-License-Identifier: Apache-2.0
//! @file Whether the attention by ggml that is measured is the attention that we mean.
#pragma once

#include <cstdio>

namespace kvcrumb_bench {

//! Compares ggml_attention of every type and order, with 1 and 2 threads, short and long, with
//! kvcrumb::reference, looks whether a pool at rest lets the processors go, and prints both to `log`. False
//! if something is above its tolerance: then times of it say nothing. Requires that no other thread of this
//! process is at work; takes about a second.
[[nodiscard]] bool ggml_self_check(std::FILE* log);

}  // namespace kvcrumb_bench
