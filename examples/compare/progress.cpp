// SPDX-License-Identifier: Apache-2.0
//! @file progress: see progress.hpp.
#include "progress.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "text.hpp"

namespace kvcrumb_compare {
namespace {

bool is_terminal(std::FILE* stream) {
  int const descriptor = fileno(stream);
  if (descriptor < 0 || isatty(descriptor) == 0) return false;
  char const* const term = std::getenv("TERM");
  return term == nullptr || std::string_view(term) != "dumb";
}

int columns_of(std::FILE* stream) {
  winsize size{};
  if (ioctl(fileno(stream), TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return 80;
  return size.ws_col;
}

std::string clock_text(double seconds) {
  long const whole = std::lround(std::clamp(seconds, 0.0, 359999.0));
  if (whole >= 3600) return fmt::format("{}:{:02}:{:02}", whole / 3600, whole / 60 % 60, whole % 60);
  return fmt::format("{}:{:02}", whole / 60, whole % 60);
}

}  // namespace

std::string progress_line(std::string_view label, double done, double elapsed_seconds, int width) {
  double const share = done >= 0 ? std::min(done, 1.0) : 0;  // NaN: 0
  std::string const name = fmt::format("{:<8.24}", printable(label, 100));
  std::string rest =
      fmt::format(" {:3.0f} %  {} elapsed", std::floor(100 * share), clock_text(elapsed_seconds));
  if (share >= 0.02 && elapsed_seconds >= 0.5) {
    rest += fmt::format(", {} left", clock_text(elapsed_seconds * (1 - share) / share));
  }
  int const used = static_cast<int>(name.size() + rest.size()) + 3;
  int const cells = std::min(40, width - used);
  if (cells < 4) {
    std::string const narrow = fmt::format("{:3.0f} %", std::floor(100 * share));
    return static_cast<int>(narrow.size()) <= width ? narrow : std::string();
  }
  int const full = static_cast<int>(std::floor(share * cells));
  return fmt::format("{} [{:#<{}}{:.<{}}]{}", name, "", full, "", cells - full, rest);
}

progress_bar::progress_bar(double steps, std::FILE* stream)
    : stream_(stream),
      steps_(steps),
      visible_(steps > 0 && is_terminal(stream)),
      start_(clock::now()),
      last_(start_) {}

progress_bar::~progress_bar() { finish(); }

void progress_bar::update(std::string_view label, double done) {
  if (!visible_) return;
  auto const now = clock::now();
  if (drawn_ && label == label_ && now - last_ < std::chrono::milliseconds(100)) return;
  label_ = label;
  last_ = now;
  drawn_ = true;
  double const elapsed = std::chrono::duration<double>(now - start_).count();
  // One column stays free: a terminal that is full to the edge may wrap.
  std::string const line = progress_line(label, done / steps_, elapsed, columns_of(stream_) - 1);
  fmt::print(stream_, "\r{}\x1B[K", line);
  std::fflush(stream_);
}

void progress_bar::finish() {
  if (drawn_) {
    std::fputs("\r\x1B[K", stream_);
    std::fflush(stream_);
  }
  drawn_ = false;
  visible_ = false;
}

}  // namespace kvcrumb_compare
