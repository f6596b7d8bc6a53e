// SPDX-License-Identifier: Apache-2.0
//! @file A tracer has one hook at least.
// expect: tracer
// expect: constraint
#include "kvcrumb/trace/pair.hpp"
#include "kvcrumb/trace/tracers.hpp"

using namespace kvcrumb;

struct silent {};
using pair = tracer_pair<error_tracer, silent>;
