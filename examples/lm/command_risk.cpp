// SPDX-License-Identifier: Apache-2.0
//! @file kvcrumb-lm risk: which layers of a model are hard to quantize, from the rows that it computes for a
//! text.
#include <fstream>

#include <fmt/format.h>

#include "commands.hpp"
#include "evaluation.hpp"
#include "risk_measured.hpp"
#include "text.hpp"

namespace kvcrumb_lm {

int run_risk(risk_arguments const& a) {
  auto opened = open_session(a.model);
  if (!opened) return fail(opened.error);
  session& s = **opened;
  auto const tokens = window_of(s, a.text);
  if (!tokens) return fail(tokens.error);
  auto layers = record_rows(s.m, *tokens, s.threads);
  if (!layers) return fail(layers.error);
  kvcrumb_compare::recorded_layers recorded;
  recorded.layers = std::move(*layers);
  recorded.format = "model";
  std::int64_t const length = recorded.layers.front().tokens;
  auto const settings = kvcrumb_compare::risk_settings_of(kvcrumb_compare::settings_for(length));
  std::string const name = fmt::format("{} on {}", kvcrumb_compare::printable(a.model.folder, 400),
                                       kvcrumb_compare::printable(a.text.file, 400));
  auto const report = kvcrumb_compare::measured_risk(name, recorded, settings);
  if (!report) return fail(report.error);
  if (!a.html.empty()) {
    std::ofstream page(a.html, std::ios::binary);
    page << kvcrumb_compare::risk_html(*report, recorded);
    if (!page.flush())
      return fail(fmt::format("'{}' cannot be written", kvcrumb_compare::printable(a.html, 400)));
  }
  fmt::print("{}", a.json ? kvcrumb_compare::risk_json(*report) : kvcrumb_compare::risk_text(*report));
  return 0;
}

}  // namespace kvcrumb_lm
