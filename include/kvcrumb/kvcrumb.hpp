// SPDX-License-Identifier: Apache-2.0
//! @file Everything that a plain C++20 compiler can use. Reading order: scheme/concept.hpp (the waist),
//! scheme/composed.hpp (the usual scheme), schemes.hpp (the named systems), attend.hpp, cache/kv_cache.hpp.
#pragma once

#include "kvcrumb/attend.hpp"
#include "kvcrumb/cache/kv_cache.hpp"
#include "kvcrumb/cache/save.hpp"
#include "kvcrumb/schemes.hpp"
#include "kvcrumb/trace/pair.hpp"
#include "kvcrumb/trace/tracers.hpp"
#include "kvcrumb/version.hpp"
#include "kvcrumb/view/batch_cache.hpp"
#include "kvcrumb/view/copy_tiles.hpp"
