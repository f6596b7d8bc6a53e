// SPDX-License-Identifier: Apache-2.0
//! @file risk_text: a risk report for a terminal.
#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "risk.hpp"
#include "text.hpp"

namespace kvcrumb_compare {

namespace {

using rows = std::vector<std::vector<std::string>>;

//! Columns as wide as their widest cell; the first to the left, the others to the right.
std::string aligned(rows const& table) {
  std::vector<std::size_t> widths(table.front().size(), 0);
  for (auto const& row : table) {
    for (std::size_t c = 0; c < row.size(); ++c)
      widths[c] = std::max(widths[c], row[c].size());
  }
  std::string out;
  for (auto const& row : table) {
    std::string line = fmt::format("{:<{}}", row[0], widths[0]);
    for (std::size_t c = 1; c < row.size(); ++c)
      line += fmt::format("  {:>{}}", row[c], widths[c]);
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string number(double x) {
  return x != 0.0 && x < 0.00095 ? fmt::format("{:.1e}", x) : fmt::format("{:.4f}", x);
}

std::string outliers_of(token_statistics const& s) {
  std::vector<std::string> parts;
  for (outlier_token const& t : s.outliers)
    parts.push_back(fmt::format("{} ({:.2f})", t.position, t.key_norm));
  return parts.empty() ? "none" : fmt::format("{}", fmt::join(parts, " "));
}

std::vector<std::string> statistics_row(std::string place, token_statistics const& t) {
  return {std::move(place), fmt::format("{:.2f}", t.smallest), fmt::format("{:.2f}", t.largest),
          fmt::format("{}/{}/{}", t.below_70, t.below_50, t.below_30), outliers_of(t)};
}

std::string statistics_table(risk_report const& report) {
  constexpr std::size_t most_heads = 8;  // of a layer
  rows table{{"layer head", "smallest", "largest", "<.7/<.5/<.3", "outlier tokens", "channel", "peak", ">5x",
              "k/v", "mean's", "|mean|", "|mean|"},
             {"", "norm", "norm", "tokens", "(norm)", "largest", "", "", "norm", "energy", "median", "max"}};
  for (layer_risk const& layer : report.layers) {
    auto const& heads = layer.statistics.heads;
    for (std::size_t h = 0; h < heads.size() && h < most_heads; ++h) {
      auto row = statistics_row(fmt::format("{} {}", layer.number, h), heads[h].tokens);
      row.insert(row.end(), {fmt::format("{:.1f}", heads[h].channels.largest),
                             fmt::format("{:.1f}", heads[h].channels.largest_peak),
                             fmt::format("{}", heads[h].channels.above_five),
                             fmt::format("{:.2f}", heads[h].kv_norm_ratio),
                             fmt::format("{:.2f}", heads[h].bias.energy_share),
                             fmt::format("{:.2f}", heads[h].bias.median_size),
                             fmt::format("{:.1f}", heads[h].bias.largest_size)});
      table.push_back(std::move(row));
    }
    auto row = statistics_row(
        fmt::format("{} {}", layer.number, heads.size() > most_heads ? "all, more in --json" : "all"),
        layer.statistics.tokens);
    row.resize(table.front().size());
    table.push_back(std::move(row));
  }
  return aligned(table);
}

std::string scheme_table(risk_report const& report) {
  bool const measured = report.predicted.has_value();
  rows table{{"scheme", "bits", "predicted", "of keys", "of values", "KL"},
             {"", "in tiles", "output", "alone", "alone", "nats"}};
  if (measured) {
    table[0].insert(table[0].end(), {"without queries", "measured"});
    table[1].insert(table[1].end(), {"output", "output"});
  }
  for (scheme_risk const& s : report.means) {
    std::vector<std::string> row{s.scheme,
                                 fmt::format("{:.3f}", s.tile_bits),
                                 number(s.predicted.output),
                                 number(s.predicted.key_part),
                                 number(s.predicted.value_part),
                                 number(s.predicted.divergence)};
    if (measured) row.insert(row.end(), {number(s.stand_in->output), number(*s.measured)});
    table.push_back(std::move(row));
  }
  return aligned(table);
}

std::string judged(advised a, std::optional<double> gain) {
  return gain ? fmt::format("{} ({:.2f})", name_of(a), *gain) : std::string("-");
}

std::string layer_table(risk_report const& report) {
  rows table{{"layer", "2-bit error", "4-bit error", "more bits", "tracing", "per channel", "centring"},
             {"", "kivi2", "kivi4", "", "(gain)", "(gain)", "(gain)"}};
  for (layer_risk const& layer : report.layers) {
    auto const error = [&](std::string_view name) {
      for (scheme_risk const& s : layer.schemes) {
        if (s.scheme == name) return number(s.predicted.output);
      }
      return std::string("-");
    };
    layer_advice const& a = layer.advice;
    table.push_back({fmt::format("{}", layer.number), error("kivi2"), error("kivi4"),
                     a.more_bits               ? a.more_bits_for
                     : report.recorded_queries ? "no"
                                               : "-",
                     judged(a.tracing, a.tracing_gain), judged(a.per_channel, a.channel_gain),
                     judged(a.centring, a.centring_gain)});
  }
  return aligned(table);
}

std::string check_text(char const* what, rank_check const& c) {
  auto const [low, high] = std::minmax_element(c.of_layers.begin(), c.of_layers.end());
  std::string out =
      fmt::format("  {}: schemes {:.3f} (single layers {:.3f} to {:.3f})", what, c.of_means, *low, *high);
  if (c.of_layers.size() > 1) out += fmt::format(", layers {:.3f}", c.across_layers);
  return out + "\n";
}

}  // namespace

std::string risk_text(risk_report const& report) {
  std::string out =
      fmt::format("{}\n{} layer{}, {} kv heads, {} tokens, head dimension {}; {}\n\n",
                  printable(report.input, 400), report.layers.size(), report.layers.size() == 1 ? "" : "s",
                  report.kv_heads, report.tokens, report.head_dim,
                  report.recorded_queries
                      ? fmt::format("{} recorded queries of {} heads", report.probes, report.query_heads)
                      : std::string("no queries recorded"));
  for (std::string const& s : report.sentences)
    out += s + "\n";
  out +=
      "\nKeys (norms over the median token, channels over the median channel)\n" + statistics_table(report);
  out += "\nPredicted errors, mean of the layers\n" + scheme_table(report);
  if (report.predicted) {
    out += "\nRank correlation of predicted with measured output errors\n";
    out += check_text("with the queries", *report.predicted) + check_text("without", *report.stand_in);
  }
  out += "\nLayers\n" + layer_table(report) + "\nFewest bits within a predicted output error\n";
  for (limit_advice const& l : report.limits)
    out += fmt::format("  {:.2f}  {}\n", l.limit, l.scheme.empty() ? "none" : l.scheme);
  for (std::string const& note : report.notes)
    out += fmt::format("\n{}\n", printable(note));
  return out;
}

}  // namespace kvcrumb_compare
