// SPDX-License-Identifier: Apache-2.0
//! @file html_report: see report.hpp. Every element is closed, XML style, which keeps the page easy to check.
#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>

#include <fmt/format.h>

#include "picture.hpp"
#include "report.hpp"
#include "report_columns.hpp"
#include "text.hpp"

namespace kvcrumb_compare {
namespace {

constexpr std::string_view style = R"css(
:root { color-scheme: light dark; --page: #fbfaf8; --panel: #ffffff; --ink: #1f2328; --soft: #5c6470;
  --rule: #dcdfe4;
  --grid: #e8eaee; --accent: #2f6fb3; --mark: #c2410c; --band: #f3f5f8; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --panel: #1b1f25; --ink: #e6e8eb; --soft:
  #9aa3ae;
  --rule: #343a43; --grid: #2a3038; --accent: #7db4ec; --mark: #ff9a5c; --band: #20252c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .4rem; }
h3 { font-size: 1rem; margin: 0 0 .1rem; }
p { margin: .3rem 0 .8rem; max-width: 75ch; }
.lead, .how, figcaption { color: var(--soft); }
.lead { font-size: 1.02rem; max-width: none; }
.lead strong { color: var(--ink); overflow-wrap: anywhere; }
.panel { background: var(--panel); border: 1px solid var(--rule); border-radius: 10px; padding: 1rem 1.1rem;
  margin: .8rem 0 1.2rem; }
.scroll { overflow-x: auto; padding: .3rem .4rem; }
figure { margin: 0; }
figure.panel { margin: .8rem 0 1.4rem; }
figcaption { font-size: .9rem; margin-top: .1rem; }
.note { border-left: 4px solid var(--mark); padding: .5rem .9rem; background: var(--band); border-radius: 0
  6px 6px 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .38rem .45rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; font-weight: 600; }
thead th { font-weight: 600; border-bottom: 2px solid var(--rule); vertical-align: bottom; line-height:
  1.25; }
thead small { display: block; font-weight: 400; color: var(--soft); }
tbody tr + tr td { border-top: 1px solid var(--grid); }
tbody tr:hover td { background: var(--band); }
td.none { color: var(--soft); }
.dot { color: var(--accent); }
table.plain td { font-weight: 400; text-align: left; white-space: normal; vertical-align: top; }
table.plain th { text-align: left; white-space: nowrap; vertical-align: top; font-weight: 600; }
table.plain td { overflow-wrap: anywhere; }
details { margin: .5rem 0; }
summary { cursor: pointer; font-weight: 600; }
code { font: .92em ui-monospace, "SFMono-Regular", Consolas, "DejaVu Sans Mono", monospace; overflow-wrap:
  anywhere; }
figure.panel { overflow-x: auto; }
svg { display: block; width: 100%; min-width: 620px; height: auto; }
svg text { fill: var(--ink); font-size: 12.5px; font-variant-numeric: tabular-nums; }
svg .tick, svg .name, svg .hint { fill: var(--soft); }
svg .tick { font-size: 12px; }
.cells { image-rendering: pixelated; }
.axis { stroke: var(--soft); stroke-width: 1; }
.grid { stroke: var(--grid); stroke-width: 1; }
.median { stroke: var(--ink); stroke-width: 1.2; stroke-dasharray: 6 4; }
.curve { fill: none; stroke: var(--accent); stroke-width: 1.3; stroke-linejoin: round; }
.front { fill: none; stroke: var(--accent); stroke-width: 1.6; stroke-dasharray: 7 5; opacity: .75; }
.hover { fill: transparent; }
.hover:hover { fill: var(--soft); fill-opacity: .18; }
.mark path { fill: var(--mark); }
.mark circle { fill: var(--panel); stroke: var(--mark); stroke-width: 2; }
.mark text, .point text { paint-order: stroke; stroke: var(--panel); stroke-width: 3px; stroke-linejoin:
  round; }
.mark text { fill: var(--mark); font-weight: 600; }
.point circle, .point path { fill: var(--panel); stroke: var(--soft); stroke-width: 2; }
.point.best circle, .point.best path { fill: var(--accent); stroke: var(--accent); }
.point.best text { font-weight: 600; }
@media print { body { background: #fff; } figure, tr { break-inside: avoid; } }
)css";

bool has_output_errors(report_input const& input) {
  return std::any_of(input.results.begin(), input.results.end(),
                     [](scheme_result const& r) { return r.output_rel_l2_mean.has_value(); });
}

std::optional<double> plotted_error(scheme_result const& r, bool output) {
  return output ? r.output_rel_l2_mean : r.k_rel_l2;
}

std::string summary_table(report_input const& input) {
  bool const output = has_output_errors(input);
  std::vector<double> bits;
  std::vector<std::optional<double>> errors;
  for (scheme_result const& r : input.results) {
    bits.push_back(r.bits_per_value);
    errors.push_back(plotted_error(r, output));
  }
  std::vector<std::size_t> const front = pareto_front(bits, errors);
  std::string out = "<div class=\"panel scroll\"><table>\n<thead><tr>";
  for (column const& c : columns()) {
    out += fmt::format("<th title=\"{}\">{}<small>{}</small></th>", escape_html(c.meaning), c.title, c.unit);
  }
  out += "</tr></thead>\n<tbody>\n";
  for (std::size_t i = 0; i < input.results.size(); ++i) {
    out += "<tr>";
    bool first = true;
    for (column const& c : columns()) {
      std::string const cell = c.cell(input.results[i]);
      std::string shown = cell == "-" ? "\xE2\x80\x93" : escape_html(cell);
      if (first && std::find(front.begin(), front.end(), i) != front.end()) {
        shown += " <span class=\"dot\" title=\"on the Pareto front\">\xE2\x97\x8F</span>";
      }
      out += fmt::format("<td{}>{}</td>", cell == "-" ? " class=\"none\"" : "", shown);
      first = false;
    }
    out += "</tr>\n";
  }
  out += "</tbody></table></div>\n";
  out += fmt::format("<p class=\"how\"><span class=\"dot\">\xE2\x97\x8F</span> no other scheme here has both "
                     "fewer bits and a "
                     "smaller {}. \xE2\x80\x93 means that this input cannot tell.</p>\n",
                     output ? "output error" : "key error");
  return out;
}

std::string traced_details(scheme_result const& result) {
  std::map<std::pair<int, int>, std::vector<traced_token>> places;  // head -1: all heads
  for (traced_token const& t : result.traced_tokens)
    places[{t.layer, t.head.value_or(-1)}].push_back(t);
  std::string out = fmt::format("<details><summary>{}: {} tokens kept apart</summary>\n"
                                "<table class=\"plain\"><tbody>\n",
                                escape_html(result.scheme), result.traced_tokens.size());
  for (auto& [place, tokens] : places) {
    std::sort(tokens.begin(), tokens.end(),
              [](auto const& a, auto const& b) { return a.position < b.position; });
    out += fmt::format("<tr><th>layer {}, {}</th><td>", place.first,
                       place.second < 0 ? std::string("all heads") : fmt::format("head {}", place.second));
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      out += fmt::format("{}{} ({:.2f})", i == 0 ? "" : ", ", tokens[i].position, tokens[i].norm_ratio);
    }
    out += "</td></tr>\n";
  }
  return out + "</tbody></table></details>\n";
}

std::string picture_section(key_picture const& picture) {
  std::vector<double> const norms = norms_of(picture);
  double const middle = median(norms);
  std::vector<double> largest(static_cast<std::size_t>(picture.head_dim), 0);
  for (std::size_t i = 0; i < picture.keys.size(); ++i) {
    double& channel = largest[i % largest.size()];
    channel = std::max(channel, std::fabs(static_cast<double>(picture.keys[i])));
  }
  auto const widest = std::max_element(largest.begin(), largest.end());
  double const usual = median(largest);
  std::string facts;
  if (usual > 0) {
    facts += fmt::format("Largest channel: {}, {:.1f} times the median channel; ", widest - largest.begin(),
                         *widest / usual);
  }
  if (middle > 0) {
    auto const [low, high] = std::minmax_element(norms.begin(), norms.end());
    facts += fmt::format("{}: {:.2f} (token {}) to {:.2f} (token {}) of the median.",
                         escape_html(picture.norm_name.empty() ? "key L1 norm" : picture.norm_name, 80),
                         *low / middle, low - norms.begin(), *high / middle, high - norms.begin());
  }
  return fmt::format(
      "<figure class=\"panel\">\n<h3>Layer {}, kv head {}</h3>\n<figcaption>{}</figcaption>\n{}{}</figure>\n",
      picture.layer, picture.head, facts, heat_map_svg(picture), norm_svg(picture));
}

std::string row(std::string_view name, std::string_view value, bool code = false) {
  return fmt::format("<tr><th>{}</th><td>{}{}{}</td></tr>\n", escape_html(name), code ? "<code>" : "",
                     escape_html(value, 4000), code ? "</code>" : "");
}

std::string what_was_run(report_input const& input) {
  std::string out = "<div class=\"panel scroll\"><table class=\"plain\"><tbody>\n";
  out += row("input", input.input, true);
  out += row("shape", shape_sentence(input));
  std::string layers;
  for (int const layer : input.layers)
    layers += (layers.empty() ? "" : ", ") + std::to_string(layer);
  out += row("layers", layers);
  out += row("settings", fmt::format("key group {} tokens, full-precision window {} tokens, tile {} tokens",
                                     input.group, input.window, input.tile_tokens));
  if (!input.command.empty()) out += row("command", input.command, true);
  out += row("program", "kvcrumb-compare " + input.version);
  for (auto const& [key, value] : input.source)
    out += row("file: " + key, value);
  out += "</tbody></table></div>\n";
  if (!input.schemes.empty()) {
    out += "<h2>Schemes</h2>\n<div class=\"panel scroll\"><table class=\"plain\"><tbody>\n";
    for (auto const& [name, sentence] : input.schemes)
      out += row(name, sentence);
    out += "</tbody></table></div>\n";
  }
  out += "<h2>Columns</h2>\n<div class=\"panel scroll\"><table class=\"plain\"><tbody>\n";
  for (column const& c : columns()) {
    out += row(*c.unit == '\0' ? std::string(c.title) : fmt::format("{} ({})", c.title, c.unit), c.meaning);
  }
  return out + "</tbody></table></div>\n";
}

}  // namespace

std::string html_report(report_input const& input) {
  std::string out = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
                    "<meta name=\"color-scheme\" content=\"light dark\"/>\n";
  out += fmt::format("<title>kvcrumb-compare: {}</title>\n<style>{}</style>\n</head>\n<body>\n<main>\n",
                     escape_html(input.input, 200), style);
  out += fmt::format(
      "<h1>Key-value cache schemes compared</h1>\n<p class=\"lead\"><strong>{}</strong><br/>{}</p>\n",
      escape_html(input.input, 400), escape_html(shape_sentence(input)));
  for (std::string const& note : input.notes)
    out += fmt::format("<p class=\"note\">{}</p>\n", escape_html(note));

  out += "<h2>What each scheme costs and keeps</h2>\n" + summary_table(input);
  for (scheme_result const& r : input.results) {
    if (!r.traced_tokens.empty()) out += traced_details(r);
  }

  bool const output = has_output_errors(input);
  auto const scatter_of = [&](auto error_of, char const* title) {
    std::vector<scatter_point> points;
    for (scheme_result const& r : input.results)
      points.push_back({printable(r.scheme, 40), r.bits_per_value, error_of(r)});
    return scatter_svg(points, title);
  };
  std::string const scatter =
      scatter_of([&](scheme_result const& r) { return plotted_error(r, output); },
                 output ? "attention output error, mean rel L2" : "key error, rel L2");
  if (!scatter.empty()) {
    out += "<h2>Error against bits</h2>\n";
    out += fmt::format(
        "<p class=\"how\">Further left is smaller, further down is closer to exact attention. The "
        "dashed line joins the schemes that no other one beats in both.{}</p>\n",
        output ? ""
               : " The file has no queries, so this is the error of the keys, which predicts the "
                 "error of attention only roughly.");
    out += "<figure class=\"panel\">\n" + scatter + "</figure>\n";
  }
  std::string const divergence = output
                                     ? scatter_of([](scheme_result const& r) { return r.attention_kl_mean; },
                                                  "divergence of the weights, nats")
                                     : std::string{};
  if (!divergence.empty()) {
    out +=
        "<h2>Divergence against bits</h2>\n<p class=\"how\">The same for the attention weights: how far they "
        "are from the exact ones. It depends on the keys alone.</p>\n<figure class=\"panel\">\n" +
        divergence + "</figure>\n";
  }

  bool const any = std::any_of(input.pictures.begin(), input.pictures.end(),
                               [](key_picture const& p) { return p.tokens > 0 && p.head_dim > 0; });
  if (any) {
    out += "<h2>The keys</h2>\n<p class=\"how\">Colour is |key|; a bright horizontal stripe is an outlier "
           "channel, "
           "which asks for parameters per channel. A dark or bright vertical line is an outlier token, which "
           "widens "
           "the range of every group it falls into. Marked tokens are those that a scheme kept apart; the "
           "number in "
           "brackets is their key norm over the median. Colours follow the square root of |key|; of more "
           "than 256 "
           "tokens each column shows a mean, or the marked token in it.</p>\n";
    for (key_picture const& picture : input.pictures) {
      if (picture.tokens > 0 && picture.head_dim > 0) out += picture_section(picture);
    }
  }
  out += "<h2>What was run</h2>\n" + what_was_run(input);
  return out + "</main>\n</body>\n</html>\n";
}

}  // namespace kvcrumb_compare
