// SPDX-License-Identifier: Apache-2.0
//! @file The progress bar: nothing in a pipe, one line on a terminal that is gone at the end.
#include "support/catch.hpp"

#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>

#include <fcntl.h>
#include <unistd.h>

#include "progress.hpp"

namespace {

using namespace kvcrumb_compare;

void draw(std::FILE* stream, bool& visible) {
  progress_bar bar(4, stream);
  visible = bar.visible();
  bar.update("kivi2", 0);
  bar.update("ott2", 2);
  bar.finish();
  bar.update("late", 3);
}

}  // namespace

TEST_CASE("the progress bar prints nothing in a pipe") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  std::FILE* const stream = fdopen(ends[1], "w");
  REQUIRE(stream != nullptr);
  bool visible = true;
  draw(stream, visible);
  CHECK(!visible);
  std::fclose(stream);
  char byte = 0;
  CHECK(read(ends[0], &byte, 1) == 0);  // end of file at once
  close(ends[0]);
}

TEST_CASE("the progress bar draws on a terminal and removes itself") {
  int const terminal = posix_openpt(O_RDWR | O_NOCTTY);
  if (terminal < 0 || grantpt(terminal) != 0 || unlockpt(terminal) != 0) {
    KVCRUMB_TEST_SKIP("skipped: this machine gives no pseudo-terminal");
  }
  std::FILE* const stream = fopen(ptsname(terminal), "w");
  REQUIRE(stream != nullptr);
  char const* const term = std::getenv("TERM");
  std::string const before = term != nullptr ? term : "";
  setenv("TERM", "xterm", 1);
  bool visible = false;
  draw(stream, visible);
  setenv("TERM", "dumb", 1);
  bool visible_if_dumb = true;
  draw(stream, visible_if_dumb);
  setenv("TERM", before.c_str(), 1);
  std::fflush(stream);
  char buffer[4096];
  ssize_t const size = read(terminal, buffer, sizeof buffer);
  std::fclose(stream);
  close(terminal);
  REQUIRE(size > 0);
  std::string const shown(buffer, static_cast<std::size_t>(size));
  CHECK(visible);
  CHECK(!visible_if_dumb);
  CHECK(shown.find("kivi2") != std::string::npos);
  CHECK(shown.find("ott2") != std::string::npos);
  CHECK(shown.find(" 50 %") != std::string::npos);
  CHECK(shown.find("late") == std::string::npos);
  CHECK(shown.find('\n') == std::string::npos);
  CHECK(shown.ends_with("\r\x1B[K"));
}

TEST_CASE("a progress line tells what remains and fits its width") {
  CHECK(progress_line("ott2", 0.25, 10, 80).find(" 25 %  0:10 elapsed, 0:30 left") != std::string::npos);
  CHECK(progress_line("ott2", 0.5, 4000, 80).find("1:06:40 elapsed, 1:06:40 left") != std::string::npos);
  CHECK(progress_line("ott2", 0, 10, 80).find("left") == std::string::npos);
  for (double const done : {-1.0, 0.0, 0.33, 1.0, 7.0, std::numeric_limits<double>::quiet_NaN()}) {
    for (int width = 0; width < 120; ++width) {
      CAPTURE(done, width);
      CHECK(static_cast<int>(progress_line("a long name of a scheme that is cut", done, 3, width).size()) <=
            width);
    }
  }
}
