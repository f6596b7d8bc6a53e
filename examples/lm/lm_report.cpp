// SPDX-License-Identifier: Apache-2.0
//! @file lm_report: see lm_report.hpp.
#include "lm_report.hpp"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "picture.hpp"
#include "text.hpp"

namespace kvcrumb_lm {
namespace {

using kvcrumb_compare::escape_html;
using kvcrumb_compare::printable;
using json = nlohmann::ordered_json;

struct column {
  char const *title, *unit, *meaning;
  std::string (*cell)(scheme_evaluation const&);
};

// Small numbers keep two digits instead of becoming 0.0000.
std::string number(double x) {
  if (!std::isfinite(x)) return "-";
  return std::fabs(x) >= 5e-4 || x == 0.0 ? fmt::format("{:.4f}", x) : fmt::format("{:.1e}", x);
}

template <int Quarter>
std::string quarter(scheme_evaluation const& e) {
  score_means const& q = e.summary.quarters[Quarter];
  return q.tokens > 0 ? number(q.divergence) : "-";
}

constexpr column columns[] = {
    {"scheme", "", "its name and options", [](auto const& e) { return e.request.text; }},
    {"bits", "per value", "all bytes of the caches at the end of the windows over all keys and values",
     [](auto const& e) { return fmt::format("{:.3f}", e.bits_per_value); }},
    {"bits", "all steps", "the same over all steps of a window, mean bytes over mean values",
     [](auto const& e) { return fmt::format("{:.3f}", e.mean_bits); }},
    {"PPL", "", "perplexity: exp of the mean loss",
     [](auto const& e) { return fmt::format("{:.3f}", e.summary.perplexity); }},
    {"ln ratio", "to fp16", "ln of the perplexity over that of the base",
     [](auto const& e) { return number(e.summary.log_ratio); }},
    {"+-", "", "standard error of ln ratio", [](auto const& e) { return number(e.summary.log_ratio_error); }},
    {"KLD", "mean", "KL(base || scheme) of the next token, nats",
     [](auto const& e) { return number(e.summary.all.divergence); }},
    {"+-", "", "standard error of the mean",
     [](auto const& e) { return number(e.summary.divergence_error); }},
    {"KLD", "median", "half of the tokens have less", [](auto const& e) { return number(e.summary.median); }},
    {"KLD", "99 %", "99 of 100 tokens have less", [](auto const& e) { return number(e.summary.percent_99); }},
    {"KLD", "99.9 %", "999 of 1,000 tokens have less",
     [](auto const& e) { return number(e.summary.percent_99_9); }},
    {"top-1", "% equal", "tokens whose most probable successor is that of the base",
     [](auto const& e) { return fmt::format("{:.2f}", 100.0 * e.summary.all.same_top); }},
    {"KLD", "1st quarter", "mean over the first quarter of the context", quarter<0>},
    {"KLD", "2nd", "mean over the second quarter", quarter<1>},
    {"KLD", "3rd", "mean over the third quarter", quarter<2>},
    {"KLD", "4th", "mean over the last quarter", quarter<3>},
    {"cache", "s", "time in append and attend, all windows",
     [](auto const& e) { return fmt::format("{:.1f}", e.cache_seconds); }},
};

std::string protocol(report_input const& in) {
  return fmt::format("{} windows of {} tokens{}, {} predicted tokens; {} entered the cache at a time, and "
                     "queries read what is stored",
                     in.windows, in.context,
                     in.first_token ? ", each behind the token that begins a text" : "", in.predicted,
                     in.chunk == 1 ? "1 token" : fmt::format("{} tokens", in.chunk));
}

json finite(double x) { return std::isfinite(x) ? json(x) : json(nullptr); }

json result_json(scheme_evaluation const& e, bool each_token) {
  score_summary const& s = e.summary;
  json quarters = json::array();
  for (score_means const& q : s.quarters)
    quarters.push_back({{"tokens", q.tokens},
                        {"divergence", finite(q.divergence)},
                        {"log_ratio", finite(q.loss - q.base_loss)},
                        {"top1", finite(q.same_top)}});
  json r{{"scheme", printable(e.request.text)},
         {"bits_per_value", finite(e.bits_per_value)},
         {"mean_bits_per_value", finite(e.mean_bits)},
         {"perplexity", finite(s.perplexity)},
         {"base_perplexity", finite(s.base_perplexity)},
         {"log_ratio", finite(s.log_ratio)},
         {"log_ratio_error", finite(s.log_ratio_error)},
         {"divergence",
          {{"mean", finite(s.all.divergence)},
           {"error", finite(s.divergence_error)},
           {"median", finite(s.median)},
           {"percent_99", finite(s.percent_99)},
           {"percent_99_9", finite(s.percent_99_9)},
           {"largest", finite(s.largest)}}},
         {"top1", finite(s.all.same_top)},
         {"quarters", std::move(quarters)},
         {"cache_seconds", finite(e.cache_seconds)}};
  if (!each_token) return r;
  json divergences = json::array(), losses = json::array();
  for (token_score const& t : e.scores) {
    divergences.push_back(finite(t.divergence));
    losses.push_back(finite(t.loss));
  }
  r["token_divergences"] = std::move(divergences);
  r["token_losses"] = std::move(losses);
  return r;
}

constexpr std::string_view style = R"css(
:root { color-scheme: light dark; --page: #fbfaf8; --panel: #fff; --ink: #1f2328; --soft: #5c6470; --grid: #e4e6ea;
  --accent: #2f6fb3; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --panel: #1b1f25; --ink: #e6e8eb; --soft: #9aa3ae;
  --grid: #2d333c; --accent: #7db4ec; } }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 2rem 1.2rem; }
.panel { background: var(--panel); border: 1px solid var(--grid); border-radius: 10px; padding: .8rem; overflow-x: auto; }
.lead, figcaption { color: var(--soft); }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .5rem; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th:first-child, td:first-child { text-align: left; font-weight: 600; }
th small { display: block; color: var(--soft); font-weight: 400; }
figure { margin: 1rem 0; }
code { overflow-wrap: anywhere; }
svg { width: 100%; min-width: 620px; height: auto; }
svg text { fill: var(--ink); font-size: 12.5px; }
svg .tick, svg .name, svg .hint { fill: var(--soft); }
.axis { stroke: var(--soft); } .grid { stroke: var(--grid); }
.front { fill: none; stroke: var(--accent); stroke-width: 1.6; stroke-dasharray: 7 5; }
.point circle, .point path { fill: var(--panel); stroke: var(--soft); stroke-width: 2; }
.point.best circle, .point.best path { fill: var(--accent); stroke: var(--accent); }
.point text { paint-order: stroke; stroke: var(--panel); stroke-width: 3px; }
)css";

}  // namespace

std::string text_report(report_input const& in) {
  std::string out = fmt::format("{}\n{}\n{}; {}\n\n", printable(in.model, 400), in.shape,
                                printable(in.text, 400), protocol(in));
  std::vector<std::vector<std::string>> cells;
  std::vector<std::string> titles, units;
  for (column const& c : columns) {
    titles.emplace_back(c.title);
    units.emplace_back(c.unit);
  }
  cells.push_back(titles);
  cells.push_back(units);
  for (scheme_evaluation const& e : in.results) {
    std::vector<std::string> row;
    for (column const& c : columns)
      row.push_back(printable(c.cell(e), 100));
    cells.push_back(std::move(row));
  }
  for (auto const& row : cells) {
    for (std::size_t i = 0; i < row.size(); ++i) {
      std::size_t width = 0;
      for (auto const& other : cells)
        width = std::max(width, other[i].size());
      out += i == 0 ? fmt::format("{:<{}}", row[i], width) : fmt::format("  {:>{}}", row[i], width);
    }
    while (out.back() == ' ')
      out.pop_back();
    out += "\n";
  }
  out += fmt::format("\n{}\n", in.base);
  for (std::string const& note : in.notes)
    out += fmt::format("{}\n", printable(note, 1000));
  return out;
}

std::string json_report(report_input const& in) {
  json root{{"model", printable(in.model)},
            {"text", printable(in.text)},
            {"command", printable(in.command)},
            {"version", in.version},
            {"base", in.base},
            {"shape", in.shape},
            {"windows", in.windows},
            {"predicted", in.predicted},
            {"context", in.context},
            {"chunk", in.chunk},
            {"first_token", in.first_token},
            {"notes", in.notes}};
  root["results"] = json::array();
  for (scheme_evaluation const& e : in.results)
    root["results"].push_back(result_json(e, in.each_token));
  return root.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string html_report(report_input const& in) {
  std::vector<kvcrumb_compare::scatter_point> points;
  for (scheme_evaluation const& e : in.results)
    points.push_back({e.request.text, e.bits_per_value, std::max(e.summary.all.divergence, 0.0)});
  std::string out = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
      "<meta name=\"viewport\" "
      "content=\"width=device-width\"/><title>kvcrumb-lm</title><style>{}</style></head>\n"
      "<body><main><h1>Divergence of a language model on quantized caches</h1>\n"
      "<p class=\"lead\"><strong>{}</strong>, {}<br/>{}; {}.</p>\n<figure class=\"panel\">{}"
      "<figcaption>KL divergence of the next token from the fp16 cache, mean, against measured bits. The "
      "line joins the "
      "schemes that no other beats in both.</figcaption></figure>\n<div class=\"panel\"><table><thead><tr>",
      style, escape_html(in.model), escape_html(in.shape), escape_html(in.text), protocol(in),
      kvcrumb_compare::scatter_svg(points, "mean KL divergence, nats"));
  for (column const& c : columns)
    out += fmt::format("<th title=\"{}\">{}<small>{}</small></th>", c.meaning, escape_html(c.title), c.unit);
  out += "</tr></thead><tbody>\n";
  for (scheme_evaluation const& e : in.results) {
    out += "<tr>";
    for (column const& c : columns)
      out += fmt::format("<td>{}</td>", escape_html(c.cell(e)));
    out += "</tr>\n";
  }
  out += fmt::format("</tbody></table></div>\n<p>{}</p>\n", escape_html(in.base));
  for (std::string const& note : in.notes)
    out += fmt::format("<p>{}</p>\n", escape_html(note));
  out += "<ul>\n";
  for (scheme_evaluation const& e : in.results) {
    if (scheme_entry const* const entry = find_scheme(e.request.name); entry != nullptr)
      out += fmt::format("<li><strong>{}</strong>: {}</li>\n", escape_html(e.request.text),
                         escape_html(entry->summary));
  }
  return out + fmt::format("</ul>\n<p><code>{}</code>, kvcrumb {}</p>\n</main></body></html>\n",
                           escape_html(in.command), in.version);
}

}  // namespace kvcrumb_lm
