// SPDX-License-Identifier: Apache-2.0
//! @file progress: a progress bar on a terminal, nothing in a pipe or a file.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>

namespace kvcrumb_compare {

//! One line of at most `width` columns: label, bar, percent, elapsed and estimated remaining time.
//! `done` is in [0, 1] (clamped). The estimate is left out before 2 % and before half a second.
std::string progress_line(std::string_view label, double done, double elapsed_seconds, int width);

//! Draws on `stream` (stderr) if it is a terminal that understands cursor movement; else every call does
//! nothing. The line is redrawn in place at most ten times a second and removed by finish() or the
//! destructor.
class progress_bar {
 public:
  //! `steps` is the amount of work in any unit, such as schemes x layers.
  explicit progress_bar(double steps, std::FILE* stream = stderr);
  ~progress_bar();
  progress_bar(progress_bar const&) = delete;
  progress_bar& operator=(progress_bar const&) = delete;

  //! Work on `label` begins, `done` steps lie behind. A changed label is drawn at once.
  void update(std::string_view label, double done);

  //! Removes the line. Nothing is drawn afterwards.
  void finish();

  bool visible() const noexcept { return visible_; }

 private:
  using clock = std::chrono::steady_clock;

  std::FILE* stream_;
  double steps_;
  bool visible_;
  bool drawn_ = false;
  std::string label_;
  clock::time_point start_;
  clock::time_point last_;
};

}  // namespace kvcrumb_compare
