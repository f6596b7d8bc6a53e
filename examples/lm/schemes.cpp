// SPDX-License-Identifier: Apache-2.0
//! @file schemes: see schemes.hpp.
#include "schemes.hpp"

#include <algorithm>
#include <charconv>
#include <iterator>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "text.hpp"

namespace kvcrumb_lm {
namespace {

using kvcrumb_compare::printable;

constexpr scheme_entry registry[] = {
    {"fp16", "full precision, the baseline", make_rows},
    {"fp32", "rows as the model computes them: what the baseline itself loses", make_rows},
    {"fp8", "e4m3 values without scales", make_rows},
    {"kivi2", "KIVI (arXiv 2402.02750), 2 bits: keys per channel, values per token", make_kivi2},
    {"kivi4", "KIVI, 4 bits", make_kivi4},
    {"ott2", "outlier-token tracing (arXiv 2505.10938): KIVI's 2 bits, the smallest keys kept exact",
     make_ott2},
    {"crumb2", "ours: 2-bit keys with a quarter of the channels 4 bits, rotated 2-bit values, tracing",
     make_crumb2},
    {"nqkv4", "NQKV (arXiv 2505.16210): NF4 blocks of 256 channels of a token", make_rows},
    {"qserve4", "QServe KV4 (arXiv 2405.04532): scale and zero point per token and head", make_rows},
    {"q8_0", "ggml q8_0 blocks of 32", make_rows},
    {"q4_0", "ggml q4_0 blocks of 32", make_rows},
    {"kvquant3", "KVQuant (arXiv 2401.18079), 3 bits, keys after RoPE; calibrated", make_kvquant, true},
    {"skvq2", "SKVQ (arXiv 2405.06219): permuted channels, clipped 2 bits; calibrated", make_skvq, true},
    {"skvq_k2v15", "SKVQ with values of three levels; calibrated", make_skvq, true},
    {"qjl", "QJL (arXiv 2406.03482): signs of a projection and a norm for keys, 2-bit values", make_qjl},
    {"wkvquant4", "WKVQuant (arXiv 2402.12065), 4 bits; calibrated", make_wkvquant, true},
    {"think", "ThinK (arXiv 2407.21018): 40 % of the key channels dropped; calibrated", make_think, true},
    {"think_kivi2", "ThinK on KIVI's 2 bits; calibrated", make_think, true},
    {"decoquant4", "DecoQuant (arXiv 2405.12591): a 4-bit factor times a small exact one", make_decoquant},
    {"turboquant2", "TurboQuant (arXiv 2504.19874), 2 bits: rotation, Lloyd-Max levels", make_turboquant},
    {"turboquant3", "TurboQuant, 3 bits", make_turboquant},
    {"turboquant4", "TurboQuant, 4 bits", make_turboquant},
    {"turboquant_prod", "TurboQuant for inner products, 3 bits: a sketch of the residual", make_turboquant},
    {"oscar2", "OScaR (arXiv 2605.19660): rotation, keys divided by their token norm, 2 bits", make_oscar},
    {"kvarn", "KVarN (arXiv 2606.03458): both variances made even; 4-bit keys, 2-bit values", make_kvarn},
    {"kvarn2", "KVarN with 2-bit keys", make_kvarn},
    {"kitty", "Kitty (arXiv 2511.18643): 2-bit keys, an eighth of the channels 4 bits", make_kitty},
    {"kitty_pro", "Kitty with a quarter of the channels boosted", make_kitty},
    {"asymkv", "AsymKV (arXiv 2410.13212): 2-bit keys in the first half of the layers, else 1 bit",
     make_mixed},
    {"kvtuner",
     "KVTuner (arXiv 2502.04420): 2 or 4 bits for keys and values of each layer, 3 on average; calibrated",
     make_mixed, true, plan_kvtuner},
    {"qaq", "QAQ (arXiv 2403.04643): a width for each token from the attention that it gets", make_qaq},
    {"saw_int4", "SAW-INT4 (arXiv 2604.19157): 4 bits per token and head, keys rotated", make_fp4},
    {"nvfp4", "NVFP4: E2M1 codes, e4m3 scales of 16 channels; scale of the tensor calibrated", make_fp4,
     true},
};

std::vector<std::string_view> split(std::string_view text, char at) {
  std::vector<std::string_view> parts;
  for (std::size_t begin = 0; begin <= text.size();) {
    std::size_t const end = std::min(text.find(at, begin), text.size());
    if (end > begin) parts.push_back(text.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

// "pool=3" into the request; an error text, empty if all is well.
std::string set_option(std::string_view text, scheme_request& r) {
  std::size_t const equals = text.find('=');
  std::string_view const key = text.substr(0, equals);
  std::string_view const number = equals == text.npos ? std::string_view{} : text.substr(equals + 1);
  int value = 0;
  auto const [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (error != std::errc{} || end != number.data() + number.size() || value < 0 || value > 1 << 20)
    return fmt::format("{}: '{}' is not a name, '=' and a whole number", r.name, printable(text, 100));
  if (key == "group") {
    r.group = value;
  } else if (key == "window") {
    r.window = value;
  } else if (key == "pool") {
    r.pool = value;
  } else if (key == "trace") {
    r.trace_from = value;
  } else {
    return fmt::format("{}: there is no option '{}', only group, window, pool and trace", r.name,
                       printable(key, 100));
  }
  return {};
}

}  // namespace

std::span<scheme_entry const> known_schemes() { return registry; }

scheme_entry const* find_scheme(std::string_view name) {
  auto const at =
      std::find_if(std::begin(registry), std::end(registry), [&](auto const& e) { return e.name == name; });
  return at == std::end(registry) ? nullptr : at;
}

void defaults_for(std::int64_t context, layer_request& r) {
  r.group = context >= 512 ? 128 : 32;
  r.window = context >= 128 ? 32 : 0;
}

result<std::vector<scheme_request>> parse_schemes(std::string_view text) {
  std::vector<scheme_request> requests;
  for (std::string_view const part : split(text, ',')) {
    // "ott2:pool=3,group=32,kivi2": an option without a name belongs to the scheme before it
    if (part.find('=') != part.npos && part.find(':') == part.npos && !requests.empty()) {
      requests.back().text += fmt::format(",{}", part);
      if (std::string error = set_option(part, requests.back()); !error.empty()) return failure{error};
      continue;
    }
    if (part == "all") {
      for (scheme_entry const& e : registry)
        requests.push_back({.text = std::string(e.name), .name = std::string(e.name)});
      continue;
    }
    std::size_t const colon = std::min(part.find(':'), part.size());
    scheme_request r{.text = std::string(part), .name = std::string(part.substr(0, colon))};
    if (find_scheme(r.name) == nullptr) {
      std::vector<std::string_view> names;
      for (scheme_entry const& e : registry)
        names.push_back(e.name);
      return failure{fmt::format("no scheme is named '{}'; there are {}", printable(r.name, 100),
                                 fmt::join(names, " "))};
    }
    if (colon < part.size()) {
      if (std::string error = set_option(part.substr(colon + 1), r); !error.empty()) return failure{error};
    }
    requests.push_back(std::move(r));
  }
  for (std::size_t i = 0; i < requests.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (requests[i].text == requests[j].text)
        return failure{fmt::format("'{}' is named twice", requests[i].text)};
    }
  }
  if (requests.empty()) return failure{"no scheme is named"};
  return requests;
}

result<std::vector<std::unique_ptr<kv_layer>>> make_layers(scheme_request const& request, layer_request shape,
                                                           std::span<recorded_layer const> calibration) {
  scheme_entry const* const entry = find_scheme(request.name);
  if (entry == nullptr) return failure{fmt::format("no scheme is named '{}'", request.name)};
  if (entry->calibrates && calibration.size() != static_cast<std::size_t>(shape.layers))
    return failure{fmt::format("{} must be calibrated, and there is no recording", request.name)};
  shape.group = request.group.value_or(shape.group);
  shape.own_window = request.window.has_value();
  shape.window = request.window.value_or(shape.window);
  shape.pool = request.pool.value_or(shape.pool);
  shape.trace_from = request.trace_from.value_or(shape.trace_from);
  if (entry->plan != nullptr) {
    auto planned = entry->plan(shape, calibration);
    if (!planned) return failure{planned.error};
    shape.plan = std::move(*planned);
  }
  std::vector<std::unique_ptr<kv_layer>> layers;
  for (int i = 0; i < shape.layers; ++i) {
    shape.layer = i;
    shape.calibration = entry->calibrates ? &calibration[static_cast<std::size_t>(i)] : nullptr;
    auto layer = entry->make(request.name, shape);
    if (!layer) return failure{layer.error};
    layers.push_back(std::move(*layer));
  }
  return layers;
}

}  // namespace kvcrumb_lm
