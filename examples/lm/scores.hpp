// SPDX-License-Identifier: Apache-2.0
//! @file scores: how far the next-token distributions of one cache are from those of another.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace kvcrumb_lm {

//! Logits to natural log-probabilities, in place.
void log_softmax(std::span<float> logits);

//! What is known of one predicted token.
struct token_score {
  std::int64_t position = 0;  //!< of the token that predicts, in its window
  double loss = 0.0;          //!< -ln p(next token), nats
  double base_loss = 0.0;
  double divergence = 0.0;  //!< KL(base || this), nats; a rounding error below 0 is possible
  bool same_top = false;    //!< both have the same most probable token
};

//! Compares two rows of log-probabilities over the vocabulary.
token_score compare_rows(std::span<float const> base, std::span<float const> row, int next_token);

//! Means over some tokens.
struct score_means {
  std::int64_t tokens = 0;
  double loss = 0.0, base_loss = 0.0, divergence = 0.0, same_top = 0.0;
};

struct score_summary {
  score_means all;
  double perplexity = 0.0, base_perplexity = 0.0;
  double log_ratio = 0.0;        //!< ln(perplexity / base_perplexity)
  double log_ratio_error = 0.0;  //!< standard error of that mean over tokens
  double divergence_error = 0.0;
  double median = 0.0, percent_99 = 0.0, percent_99_9 = 0.0, largest = 0.0;  //!< of the divergence
  std::array<score_means, 4> quarters{};                                     //!< of the context
};

//! `context` is the length of a window; percentiles as reference::percentile. Precondition: not empty.
score_summary summarize(std::span<token_score const> scores, std::int64_t context);

}  // namespace kvcrumb_lm
