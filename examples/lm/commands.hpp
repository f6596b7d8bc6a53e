// SPDX-License-Identifier: Apache-2.0
//! @file commands: what kvcrumb-lm does, behind its command line.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "tokenizer.hpp"
#include "weights.hpp"
#include "workers.hpp"

namespace kvcrumb_lm {

struct model_arguments {
  std::string folder;
  int threads = 0;           //!< 0: one for each processor
  std::string bos = "auto";  //!< auto, yes or no
};

struct text_arguments {
  std::string file;
  std::int64_t tokens = 4096;
  std::int64_t skip = 0;  //!< tokens of the text that are left out at its beginning
};

struct eval_arguments {
  model_arguments model;
  text_arguments text;
  std::string schemes, base, json, html, calibration, command;
  std::int64_t context = 1024;
  int chunk = 1;
  bool half_base = false, each_token = false;
};

struct generate_arguments {
  model_arguments model;
  std::string prompt, scheme = "ott2";
  int tokens = 100, chunk = 1;
  double temperature = 0.0;
  std::uint64_t seed = 1;
};

struct dump_arguments {
  model_arguments model;
  text_arguments text;
  std::string output, scheme = "fp16";
  int chunk = 64;
};

struct risk_arguments {
  model_arguments model;
  text_arguments text;
  bool json = false;
  std::string html;
};

//! Each returns the exit status: 0, or 2 with a sentence on stderr.
int run_eval(eval_arguments const& a);
int run_generate(generate_arguments const& a);
int run_dump(dump_arguments const& a);
int run_logits(dump_arguments const& a);
int run_risk(risk_arguments const& a);
int run_tokenize(dump_arguments const& a);
int run_list();

//! A model with its tokenizer, ready to run.
struct session {
  model m;
  tokenizer t;
  std::optional<int> first;  //!< token in front of every text
  workers threads;

  session(model loaded, tokenizer words, std::optional<int> first_token, int thread_count)
      : m(std::move(loaded)), t(std::move(words)), first(first_token), threads(thread_count) {}
};
result<std::unique_ptr<session>> open_session(model_arguments const& a);

//! The tokens of a text file without the first token, [skip, skip + tokens), and, if asked, all behind them.
result<std::vector<int>> read_tokens(session const& s, text_arguments const& a,
                                     std::vector<int>* rest = nullptr);

//! The tokens of a text with the first token in front, as many as the model can see at once.
result<std::vector<int>> window_of(session const& s, text_arguments const& a);

int fail(std::string const& text);

}  // namespace kvcrumb_lm
