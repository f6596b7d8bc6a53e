// SPDX-License-Identifier: Apache-2.0
//! @file lm_report: an evaluation as a text table, as JSON and as one HTML page with a picture.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "evaluation.hpp"

namespace kvcrumb_lm {

struct report_input {
  std::string model, text;       //!< as they were given
  std::string command, version;  //!< the command line; of kvcrumb
  std::string base;              //!< where the base came from, a sentence
  std::string shape;             //!< of the model, a sentence
  std::int64_t windows = 0, predicted = 0;
  std::int64_t context = 0;
  int chunk = 1;
  bool first_token = false;  //!< a token for the beginning of a text was put in front of each window
  std::vector<std::string> notes;
  std::vector<scheme_evaluation> results;
  bool each_token = false;  //!< JSON has the scores of every token
};

//! Aligned columns; ends with a newline; no control characters.
std::string text_report(report_input const& input);

//! Top level: model text command version base shape windows predicted context chunk first_token notes
//! results; a result: scheme bits_per_value mean_bits_per_value perplexity base_perplexity log_ratio
//! log_ratio_error divergence {mean error median percent_99 percent_99_9 largest} top1 quarters [{tokens
//! divergence log_ratio top1}] cache_seconds, and, if asked for, token_divergences and token_losses. Not
//! finite: null.
std::string json_report(report_input const& input);

//! One page with inline style, light and dark, no script, nothing to load. Every string is escaped.
std::string html_report(report_input const& input);

}  // namespace kvcrumb_lm
