// SPDX-License-Identifier: Apache-2.0
//! @file The part of Catch2 that kernel tests use, for MemorySanitizer: Catch2 itself, and containers and
//! streams of libstdc++, are not compiled with it and would be reported. TEST_CASE, SECTION (one level),
//! GENERATE (one for each test case, outside of sections), CHECK, REQUIRE, INFO, WARN and main(), which
//! understands the arguments that discover_tests.py and CTest give to Catch2 2.13. Needs
//! -D_GLIBCXX_EXTERN_TEMPLATE=0, which makes std::string a part of the test; the node-based containers stay
//! forbidden.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <initializer_list>
#include <string>
#include <type_traits>

namespace simt::plain {

struct test_case {
  char const* name;
  void (*run)();
  test_case* next;
};
inline test_case* first = nullptr;
inline int failures = 0;
inline int section_seen = 0, section_wanted = 0, value_wanted = 0, values = 1;

struct registration {
  test_case self;
  registration(char const* name, void (*run)()) : self{name, run, first} { first = &self; }
};
inline bool enter_section() { return section_seen++ == section_wanted; }
template <class T, class... Rest>
T generate(T head, Rest... rest) {
  T const all[] = {head, static_cast<T>(rest)...};
  values = static_cast<int>(1 + sizeof...(Rest));
  return all[value_wanted];
}
//! What INFO and WARN stream into: numbers and text, without the streams of libstdc++.
struct message {
  char text[400] = "";
  int used = 0;

  message& operator<<(char const* s) {
    for (; *s != '\0' && used + 1 < static_cast<int>(sizeof text); ++s)
      text[used++] = *s;
    text[used] = '\0';
    return *this;
  }
  message& operator<<(std::string const& s) { return *this << s.c_str(); }
  template <class T, std::enable_if_t<std::is_arithmetic_v<T>, int> = 0>
  message& operator<<(T x) {
    char digits[40];
    if constexpr (std::is_floating_point_v<T>) {
      std::snprintf(digits, sizeof digits, "%g", static_cast<double>(x));
    } else {
      std::snprintf(digits, sizeof digits, "%lld", static_cast<long long>(x));
    }
    return *this << digits;
  }
};
//! INFO: printed when a check fails while it is in scope.
struct note {
  message const* said;
  note const* outer;

  static inline note const* innermost = nullptr;
  explicit note(message const& said) : said(&said), outer(innermost) { innermost = this; }
  ~note() { innermost = outer; }
  note(note const&) = delete;
  note& operator=(note const&) = delete;
};
inline void check(bool passed, char const* text, char const* file, int line) {
  if (!passed) {
    std::printf("%s:%d: FAILED: %s\n", file, line, text);
    for (note const* n = note::innermost; n != nullptr; n = n->outer)
      std::printf("  %s\n", n->said->text);
    ++failures;
  }
}
struct approx {
  double value, relative = 1e-5, absolute = 0;
  explicit approx(double x) : value(x) {}
  approx& epsilon(double e) {
    relative = e;
    return *this;
  }
  approx& margin(double m) {
    absolute = m;
    return *this;
  }
  friend bool operator==(double x, approx const& a) {
    double const error = std::fabs(x - a.value);  // within either bound
    return x == a.value || error <= a.absolute || error <= a.relative * std::fabs(a.value);
  }
};
//! Whether a test specification of Catch2 (a name with escapes, perhaps * at its ends) means this name.
inline bool selected(char const* name, char const* wanted) {
  for (; *wanted != '\0'; ++wanted) {
    if (*wanted == '*' && wanted[1] == '\0') return true;
    if (*wanted == '\\') ++wanted;
    if (*name++ != *wanted) return false;
  }
  return *name == '\0';
}
//! Runs each selected test case once for each generated value and each section. As Catch2 2.13, listing
//! returns the number of names.
inline int run_all(int count, char const* const* arguments) {
  char const* wanted = "*";
  bool list = false;
  for (int i = 1; i < count; ++i) {
    if (std::strcmp(arguments[i], "--list-test-names-only") == 0) {
      list = true;
    } else if (std::strcmp(arguments[i], "--warn") == 0 || std::strcmp(arguments[i], "--reporter") == 0) {
      ++i;
    } else if (arguments[i][0] != '-') {
      wanted = arguments[i];
    }
  }
  int cases = 0;
  for (test_case* t = first; t != nullptr; t = t->next) {
    if (list) std::printf("%s\n", t->name);
    if (!selected(t->name, wanted)) continue;
    ++cases;
    values = 1;
    for (value_wanted = 0; !list && value_wanted < values; ++value_wanted) {
      section_wanted = 0;
      do {
        section_seen = 0;
        t->run();
      } while (++section_wanted < section_seen);
    }
  }
  if (list) return cases < 255 ? cases : 255;
  std::printf("%d test cases, %d failures\n", cases, failures);
  return failures == 0 && cases > 0 ? 0 : 1;
}

}  // namespace simt::plain

#define SIMT_JOIN_(a, b) a##b
#define SIMT_JOIN(a, b) SIMT_JOIN_(a, b)
#define TEST_CASE(name, ...)                                                  \
  static void SIMT_JOIN(simt_test_, __LINE__)();                              \
  static ::simt::plain::registration SIMT_JOIN(simt_registration_, __LINE__)( \
      name, SIMT_JOIN(simt_test_, __LINE__));                                 \
  static void SIMT_JOIN(simt_test_, __LINE__)()
#define SECTION(name) if (::simt::plain::enter_section())
#define GENERATE(...) ::simt::plain::generate(__VA_ARGS__)
#define CHECK(...) ::simt::plain::check(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)
#define CHECK_FALSE(...) ::simt::plain::check(!(__VA_ARGS__), "not " #__VA_ARGS__, __FILE__, __LINE__)
#define REQUIRE(...)                                                     \
  do {                                                                   \
    bool const simt_passed = static_cast<bool>(__VA_ARGS__);             \
    ::simt::plain::check(simt_passed, #__VA_ARGS__, __FILE__, __LINE__); \
    if (!simt_passed) std::exit(1);                                      \
  } while (false)
#define STATIC_REQUIRE(...) static_assert(__VA_ARGS__)
#define INFO(...)                                         \
  ::simt::plain::message SIMT_JOIN(simt_said_, __LINE__); \
  SIMT_JOIN(simt_said_, __LINE__) << __VA_ARGS__;         \
  ::simt::plain::note const SIMT_JOIN(simt_note_, __LINE__)(SIMT_JOIN(simt_said_, __LINE__))
#define WARN(...)                                         \
  do {                                                    \
    ::simt::plain::message simt_said;                     \
    std::printf("%s\n", (simt_said << __VA_ARGS__).text); \
  } while (false)
#define CAPTURE(...) static_cast<void>(0)
#define KVCRUMB_TEST_SKIP(message)          \
  do {                                      \
    std::printf("%s\n- none -\n", message); \
    return;                                 \
  } while (false)

namespace kvcrumb::test {
using Approx = simt::plain::approx;
}
