// SPDX-License-Identifier: Apache-2.0
//! @file report: text and JSON; see report.hpp.
#include "report.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <numeric>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "report_columns.hpp"
#include "text.hpp"

namespace kvcrumb_compare {
namespace {

using json = nlohmann::ordered_json;

json null_or(std::optional<double> value) {
  if (!value || !std::isfinite(*value)) return nullptr;
  return *value;
}

// Columns as wide as their widest cell plus two spaces; the first one to the left, the others to the right.
std::string table(std::vector<std::vector<std::string>> const& rows) {
  std::vector<std::size_t> widths(rows.front().size(), 0);
  for (auto const& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c)
      widths[c] = std::max(widths[c], fmt::formatted_size("{}", row[c]));
  }
  std::string out;
  for (auto const& row : rows) {
    std::string text = fmt::format("{:<{}}", row[0], widths[0]);
    for (std::size_t c = 1; c < row.size(); ++c)
      text += fmt::format("  {:>{}}", row[c], widths[c]);
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  }
  return out;
}

std::string traced_text(scheme_result const& result) {
  constexpr std::size_t most_places = 12;
  constexpr std::size_t most_tokens = 6;
  std::map<std::pair<int, int>, std::vector<traced_token>> places;  // head -1: all heads
  for (traced_token const& t : result.traced_tokens)
    places[{t.layer, t.head.value_or(-1)}].push_back(t);
  std::string out = fmt::format("\n{}: {} tokens kept apart (position, key norm over the median)\n",
                                printable(result.scheme, 40), result.traced_tokens.size());
  std::size_t shown = 0;
  for (auto& [place, tokens] : places) {
    if (shown++ == most_places) {
      out += fmt::format("  and {} more places; --json lists all\n", places.size() - most_places);
      break;
    }
    std::sort(tokens.begin(), tokens.end(),
              [](auto const& a, auto const& b) { return a.norm_ratio < b.norm_ratio; });
    out += fmt::format("  layer {:<3} {:<9}", place.first,
                       place.second < 0 ? std::string("all heads") : fmt::format("head {}", place.second));
    for (std::size_t i = 0; i < tokens.size() && i < most_tokens; ++i) {
      out += fmt::format("  {} ({:.2f})", tokens[i].position, tokens[i].norm_ratio);
    }
    out += tokens.size() > most_tokens ? fmt::format("  and {} more\n", tokens.size() - most_tokens) : "\n";
  }
  return out;
}

}  // namespace

std::string shape_sentence(report_input const& input) {
  auto const many = [](std::int64_t n, char const* word) {
    return fmt::format("{} {}{}", n, word, n == 1 ? "" : "s");
  };
  std::string out = fmt::format("{}, {}, {}, head dimension {}",
                                many(static_cast<std::int64_t>(input.layers.size()), "layer"),
                                many(input.kv_heads, "kv head"), many(input.tokens, "token"), input.head_dim);
  out += input.queries > 0 ? fmt::format("; {} of {}", many(input.queries, "recorded query token"),
                                         many(input.query_heads, "query head"))
                           : std::string("; no queries recorded");
  return out;
}

std::vector<std::size_t> pareto_front(std::vector<double> const& bits,
                                      std::vector<std::optional<double>> const& errors) {
  std::vector<std::size_t> front;
  for (std::size_t i = 0; i < bits.size(); ++i) {
    if (!errors[i]) continue;
    bool beaten = false;
    for (std::size_t k = 0; k < bits.size() && !beaten; ++k) {
      beaten = errors[k] && bits[k] <= bits[i] && *errors[k] <= *errors[i] &&
               (bits[k] < bits[i] || *errors[k] < *errors[i]);
    }
    if (!beaten) front.push_back(i);
  }
  std::stable_sort(front.begin(), front.end(),
                   [&](std::size_t a, std::size_t b) { return bits[a] < bits[b]; });
  return front;
}

std::string text_report(report_input const& input) {
  std::string out = fmt::format("{}\n{}\n\n", printable(input.input, 400), shape_sentence(input));
  std::vector<std::vector<std::string>> rows(2);
  for (column const& c : columns()) {
    rows[0].push_back(c.title);
    rows[1].push_back(c.unit);
  }
  for (scheme_result const& result : input.results) {
    std::vector<std::string> row;
    for (column const& c : columns())
      row.push_back(c.cell(result));
    rows.push_back(std::move(row));
  }
  out += table(rows);
  for (scheme_result const& result : input.results) {
    if (!result.traced_tokens.empty()) out += traced_text(result);
  }
  for (std::string const& note : input.notes)
    out += fmt::format("\n{}\n", printable(note));
  return out;
}

std::string json_report(report_input const& input) {
  json root;
  root["input"] = printable(input.input, 4000);
  root["tokens"] = input.tokens;
  root["head_dim"] = input.head_dim;
  root["version"] = input.version;
  root["command"] = printable(input.command, 4000);
  root["layers"] = input.layers;
  root["kv_heads"] = input.kv_heads;
  root["query_heads"] = input.query_heads;
  root["queries"] = input.queries;
  root["group"] = input.group;
  root["window"] = input.window;
  root["tile_tokens"] = input.tile_tokens;
  root["source"] = json::object();
  for (auto const& [key, value] : input.source)
    root["source"][printable(key)] = printable(value, 4000);
  root["notes"] = json::array();
  for (std::string const& note : input.notes)
    root["notes"].push_back(printable(note));
  root["results"] = json::array();
  for (scheme_result const& r : input.results) {
    json row;
    row["scheme"] = printable(r.scheme);
    row["bits_per_value"] = null_or(r.bits_per_value);
    row["compression"] = null_or(r.compression);
    row["output_rel_l2_mean"] = null_or(r.output_rel_l2_mean);
    row["output_rel_l2_p99"] = null_or(r.output_rel_l2_p99);
    row["attention_kl_mean"] = null_or(r.attention_kl_mean);
    row["top1_agreement"] = null_or(r.top1_agreement);
    row["k_rel_l2"] = null_or(r.k_rel_l2);
    row["v_rel_l2"] = null_or(r.v_rel_l2);
    row["traced_tokens"] = json::array();
    for (traced_token const& t : r.traced_tokens) {
      row["traced_tokens"].push_back({{"layer", t.layer},
                                      {"head", t.head ? json(*t.head) : json(nullptr)},
                                      {"position", t.position},
                                      {"norm_ratio", null_or(t.norm_ratio)}});
    }
    row["encode_ms"] = null_or(r.encode_ms);
    row["attend_ms"] = null_or(r.attend_ms);
    root["results"].push_back(std::move(row));
  }
  return root.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace kvcrumb_compare
