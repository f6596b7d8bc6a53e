// SPDX-License-Identifier: Apache-2.0
//! @file schemes: the caches that the engine can run on, by name.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kv_layer.hpp"
#include "result.hpp"
#include "tensor_file.hpp"

namespace kvcrumb_lm {

using kvcrumb_compare::failure;
using kvcrumb_compare::recorded_layer;
using kvcrumb_compare::result;

//! A name and what was asked for with it, as in "ott2:pool=3,window=32,group=32". What is not given is the
//! same for all schemes that have it (defaults_for), so that kivi2 and ott2 differ in tracing only.
struct scheme_request {
  std::string text;  //!< as it was given
  std::string name;
  std::optional<int> group{}, window{}, pool{}, trace_from{};
};

//! Requests separated by commas; "all" stands for every known scheme. Refused: an unknown name, an option
//! that does not exist, a value that is no number, a scheme given twice.
result<std::vector<scheme_request>> parse_schemes(std::string_view text);

//! What the caches of a layer are made for.
struct layer_request {
  int layer = 0, layers = 1;  //!< which one of how many
  int kv_heads = 1, head_dim = 128;
  int group = 128;          //!< tokens per key group, channels per value group: 32 or 128
  int window = 32;          //!< newest tokens that stay exact where groups of tokens are encoded
  int pool = 3;             //!< outlier tokens that ott2 and crumb2 keep per kv head
  int trace_from = 2;       //!< first layer that is traced
  bool own_window = false;  //!< the window was asked for, not a default
  recorded_layer const* calibration = nullptr;  //!< rows of this layer for the schemes that calibrate
  std::shared_ptr<void const> plan{};           //!< what the scheme's layer_planner returned

  int tile_tokens() const noexcept { return group < 32 ? 32 : group; }
};

//! Settings that fit a context, those of kvcrumb-compare: groups of 128 tokens from 512 tokens on, else 32;
//! a window of 32 from 128 tokens on, else none.
void defaults_for(std::int64_t context, layer_request& r);

//! How a scheme makes a cache; null with a text: why it cannot.
using layer_maker = result<std::unique_ptr<kv_layer>>(std::string_view name, layer_request const& r);

//! What a scheme decides for all layers together, from the rows of all of them.
using layer_planner = result<std::shared_ptr<void const>>(layer_request const& shape,
                                                          std::span<recorded_layer const> calibration);

struct scheme_entry {
  std::string_view name;
  std::string_view summary;
  layer_maker* make;
  bool calibrates = false;  //!< needs layer_request::calibration
  layer_planner* plan = nullptr;
};

//! All schemes, in the order of tables. The first, fp16, is the baseline.
std::span<scheme_entry const> known_schemes();
scheme_entry const* find_scheme(std::string_view name);

//! Empty caches of all layers for one scheme; `shape` has the heads, the number of layers and the defaults;
//! `calibration` has one recording per layer, or is empty.
result<std::vector<std::unique_ptr<kv_layer>>> make_layers(scheme_request const& request, layer_request shape,
                                                           std::span<recorded_layer const> calibration);

layer_maker make_crumb2, make_decoquant, make_fp4, make_kitty, make_kivi2, make_kivi4, make_kvarn,
    make_kvquant, make_mixed, make_oscar, make_ott2, make_qaq, make_qjl, make_rows, make_skvq, make_think,
    make_turboquant, make_wkvquant;
layer_planner plan_kvtuner;

}  // namespace kvcrumb_lm
