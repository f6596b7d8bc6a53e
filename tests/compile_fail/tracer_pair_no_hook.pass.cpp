// SPDX-License-Identifier: Apache-2.0
//! @file A tracer has one hook at least.
#include "kvcrumb/trace/pair.hpp"
#include "kvcrumb/trace/tracers.hpp"

using namespace kvcrumb;

struct silent {
  using is_null_tracer = void;
};
using pair = tracer_pair<error_tracer, silent>;
