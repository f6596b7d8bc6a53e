// SPDX-License-Identifier: Apache-2.0
//! @file Every named system and every cache of the library. kvcrumb.hpp has those of schemes.hpp alone and
//! compiles faster; include single files of schemes/ where one system is wanted.
#pragma once

#include "kvcrumb/cache/pruned_cache.hpp"
#include "kvcrumb/calibrate/clip_search.hpp"
#include "kvcrumb/calibrate/nuq.hpp"
#include "kvcrumb/calibrate/parameters.hpp"
#include "kvcrumb/calibrate/plane_clusters.hpp"
#include "kvcrumb/calibrate/skvq.hpp"
#include "kvcrumb/kvcrumb.hpp"
#include "kvcrumb/outlier/importance.hpp"
#include "kvcrumb/schemes/crumb2.hpp"
#include "kvcrumb/schemes/decoquant.hpp"
#include "kvcrumb/schemes/kitty.hpp"
#include "kvcrumb/schemes/kvarn.hpp"
#include "kvcrumb/schemes/kvquant.hpp"
#include "kvcrumb/schemes/layer_map.hpp"
#include "kvcrumb/schemes/nvfp4.hpp"
#include "kvcrumb/schemes/oscar.hpp"
#include "kvcrumb/schemes/qaq.hpp"
#include "kvcrumb/schemes/qaq_width.hpp"
#include "kvcrumb/schemes/qjl.hpp"
#include "kvcrumb/schemes/saw_int4.hpp"
#include "kvcrumb/schemes/skvq.hpp"
#include "kvcrumb/schemes/think.hpp"
#include "kvcrumb/schemes/turboquant.hpp"
#include "kvcrumb/schemes/wkvquant.hpp"
