// SPDX-License-Identifier: Apache-2.0
//! @file risk_html: a risk report as one page, in the style and with the pictures of html_report.
#include <algorithm>

#include <fmt/format.h>

#include "picture.hpp"
#include "report.hpp"
#include "risk.hpp"
#include "text.hpp"

namespace kvcrumb_compare {

namespace {

//! The style element of html_report, which both pages share.
std::string page_style() {
  std::string const page = html_report({});
  std::size_t const begin = page.find("<style>"), end = page.find("</style>");
  return begin == std::string::npos || end == std::string::npos ? "" : page.substr(begin, end + 8 - begin);
}

std::string row(std::vector<std::string> const& cells, char const* tag = "td") {
  std::string out = "<tr>";
  for (std::string const& c : cells)
    out += fmt::format("<{0}>{1}</{0}>", tag, escape_html(c));
  return out + "</tr>\n";
}

std::string table(std::vector<std::string> const& head, std::vector<std::vector<std::string>> const& body) {
  std::string out = "<div class=\"panel scroll\"><table>\n<thead>" + row(head, "th") + "</thead>\n<tbody>\n";
  for (auto const& cells : body)
    out += row(cells);
  return out + "</tbody></table></div>\n";
}

std::string tokens_text(std::vector<outlier_token> const& tokens) {
  std::string out;
  for (outlier_token const& t : tokens)
    out += fmt::format("{}{} ({:.2f})", out.empty() ? "" : ", ", t.position, t.key_norm);
  return out.empty() ? "none" : out;
}

std::string scheme_table(risk_report const& report) {
  std::vector<std::string> head{"scheme",     "bits in tiles", "predicted output",
                                "keys alone", "values alone",  "KL, nats"};
  if (report.predicted) head.insert(head.end(), {"without queries", "measured output"});
  std::vector<std::vector<std::string>> body;
  for (scheme_risk const& s : report.means) {
    body.push_back({s.scheme, fmt::format("{:.3f}", s.tile_bits), fmt::format("{:.4f}", s.predicted.output),
                    fmt::format("{:.4f}", s.predicted.key_part),
                    fmt::format("{:.4f}", s.predicted.value_part),
                    fmt::format("{:.2e}", s.predicted.divergence)});
    if (report.predicted) {
      body.back().push_back(fmt::format("{:.4f}", s.stand_in->output));
      body.back().push_back(fmt::format("{:.4f}", *s.measured));
    }
  }
  return table(head, body);
}

std::string judged(advised a, std::optional<double> gain) {
  return gain ? fmt::format("{} ({:.2f})", name_of(a), *gain) : std::string("not told");
}

std::string layer_table(risk_report const& report) {
  std::vector<std::vector<std::string>> body;
  for (layer_risk const& layer : report.layers) {
    layer_advice const& a = layer.advice;
    double channel = 0.0, share = 0.0;
    for (head_statistics const& h : layer.statistics.heads) {
      channel = std::max(channel, h.channels.largest);
      share = std::max(share, h.bias.energy_share);
    }
    auto const two_bits = std::find_if(layer.schemes.begin(), layer.schemes.end(),
                                       [](scheme_risk const& s) { return s.scheme == "kivi2"; });
    body.push_back({fmt::format("{}", layer.number), tokens_text(layer.statistics.tokens.outliers),
                    fmt::format("{:.1f}", channel), fmt::format("{:.2f}", share),
                    two_bits == layer.schemes.end() ? "" : fmt::format("{:.4f}", two_bits->predicted.output),
                    a.more_bits               ? a.more_bits_for
                    : report.recorded_queries ? "no"
                                              : "not told",
                    judged(a.tracing, a.tracing_gain), judged(a.per_channel, a.channel_gain),
                    judged(a.centring, a.centring_gain)});
  }
  return table({"layer", "outlier tokens (norm)", "largest channel", "energy of means", "2-bit error",
                "more bits", "tracing (gain)", "keys per channel (gain)", "centring (gain)"},
               body);
}

std::string check_sentence(risk_report const& report) {
  if (!report.predicted) return "";
  return fmt::format(
      "<p class=\"how\">Rank correlation with the measured output errors over the schemes: {:.3f} with "
      "the recorded queries, {:.3f} without looking at them.</p>\n",
      report.predicted->of_means, report.stand_in->of_means);
}

//! The keys of the head with the smallest key norm, with its outlier tokens marked.
std::string picture(layer_risk const& layer, recorded_layer const& recorded) {
  auto const& heads = layer.statistics.heads;
  auto const at = std::min_element(heads.begin(), heads.end(),
                                   [](auto& a, auto& b) { return a.tokens.smallest < b.tokens.smallest; });
  std::int64_t const head = at - heads.begin();
  auto const keys = head_rows(recorded, recorded.k, head);
  key_picture p;
  p.layer = layer.number;
  p.head = static_cast<int>(head);
  p.tokens = recorded.tokens;
  p.head_dim = recorded.head_dim;
  p.keys.assign(keys.begin(), keys.end());
  for (outlier_token const& t : at->tokens.outliers)
    p.traced.push_back({p.layer, p.head, t.position, t.key_norm});
  return fmt::format(
      "<figure class=\"panel\">\n<h3>Layer {}, kv head {}</h3>\n<figcaption>Largest channel: {}, {:.1f} "
      "times the median channel; outlier tokens: {}.</figcaption>\n{}{}</figure>\n",
      p.layer, p.head, at->channels.largest_at, at->channels.largest,
      escape_html(tokens_text(at->tokens.outliers)), heat_map_svg(p), norm_svg(p));
}

}  // namespace

std::string risk_html(risk_report const& report, recorded_layers const& recorded) {
  constexpr std::size_t most_pictures = 4;
  std::string out = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
                    "<meta name=\"color-scheme\" content=\"light dark\"/>\n";
  out += fmt::format("<title>kvcrumb-compare --risk: {}</title>\n{}\n</head>\n<body>\n<main>\n",
                     escape_html(report.input, 200), page_style());
  out += fmt::format(
      "<h1>Risk of quantizing this cache</h1>\n<p class=\"lead\"><strong>{}</strong><br/>{} layer{}, {} kv "
      "heads, {} tokens, head dimension {}</p>\n",
      escape_html(report.input, 400), report.layers.size(), report.layers.size() == 1 ? "" : "s",
      report.kv_heads, report.tokens, report.head_dim);
  for (std::string const& note : report.notes)
    out += fmt::format("<p class=\"note\">{}</p>\n", escape_html(note));
  out += "<h2>Advice</h2>\n";
  for (std::string const& s : report.sentences)
    out += fmt::format("<p>{}</p>\n", escape_html(s));
  out += "<h2>Layers</h2>\n" + layer_table(report);
  out += "<h2>Schemes</h2>\n" + scheme_table(report) + check_sentence(report);
  std::vector<scatter_point> points;
  for (scheme_risk const& s : report.means)
    points.push_back({s.scheme, s.tile_bits, s.predicted.output});
  out += "<figure class=\"panel\">\n" + scatter_svg(points, "predicted output error") +
         "</figure>\n<h2>The keys</h2>\n";
  for (std::size_t i = 0; i < report.layers.size() && i < recorded.layers.size() && i < most_pictures; ++i)
    out += picture(report.layers[i], recorded.layers[i]);
  return out + "</main>\n</body>\n</html>\n";
}

}  // namespace kvcrumb_compare
