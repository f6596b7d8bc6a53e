// SPDX-License-Identifier: Apache-2.0
//! @file QAQ's criterion: how many bits a token needs.
#pragma once

#include <cmath>
#include <limits>

#include "kvcrumb/scheme/mean_codes.hpp"

namespace kvcrumb::inline v0 {

//! The largest error that QAQ allows in the values of a key (arXiv 2403.04643; formula as in its code,
//! quantizer.py): sqrt(12 / norm * ln(n^3 / (n - 1) * target^2 + 1)) for n tokens. `norm` is the "2-norm of
//! query tensor", one constant for all tokens (300 in the authors' runs). It stands there unsquared, though a
//! logit's error has the variance norm^2 step^2 / 12; who wants the consistent reading passes the square.
//! Infinite for n = 1.
inline double qaq_key_error(double norm, std::int64_t n, double target) noexcept {
  if (n < 2) return std::numeric_limits<double>::max();
  double const tokens = static_cast<double>(n);
  return std::sqrt(12.0 / norm * std::log(tokens * tokens * tokens / (tokens - 1.0) * target * target + 1.0));
}

//! The same for a value: sqrt(12 / n) * target / attention, where `attention` is the largest weight that the
//! last few queries gave to the token. Without attention any error will do.
inline double qaq_value_error(double attention, std::int64_t n, double target) noexcept {
  if (!(attention > 0.0) || n < 1) return std::numeric_limits<double>::max();
  return std::sqrt(12.0 / static_cast<double>(n)) * target / attention;
}

//! ceil(log2(range / (2 error) + 1)) clamped to [least, most], without a logarithm: the smallest b with
//! 2^b >= range / (2 error) + 1.
inline int qaq_bits(double range, double error, int least, int most) noexcept {
  double const cells = error > 0.0 ? range / error * 0.5 + 1.0 : std::numeric_limits<double>::max();
  int bits = least;
  while (bits < most && std::ldexp(1.0, bits) < cells)
    ++bits;
  return bits;
}

//! Bits of a token's key and value; 0: exact.
struct qaq_width {
  int key = 0;
  int value = 0;
  friend constexpr bool operator==(qaq_width const&, qaq_width const&) = default;
};

//! What the criterion allows. Widths depend on sqrt and log of the C library and on attention weights, so
//! they may differ between machines; given the widths, bytes do not.
struct qaq_options {
  double key_error = 1.0;     //!< target error of keys; the authors tried 1 to 30
  double value_error = 1.0;   //!< of values
  double query_norm = 300.0;  //!< see qaq_key_error
  int least = 2;              //!< fewest bits
  int most = 8;               //!< most bits, at most 8
  //! Widths in use, bit b for b bits; a token gets the next one from the criterion's on, or the largest.
  //! Fewer widths make fewer classes and so less padding.
  unsigned widths = 1u << 2 | 1u << 3 | 1u << 4 | 1u << 8;
  int recent = 4;    //!< newest tokens kept exact
  int outliers = 0;  //!< sparse values at either end of a row, see mean_codes

  //! bad_bits: no width in [least, most]; out_of_range: a target that is not positive, negative counts.
  status check() const noexcept {
    if (least < 1 || most > 8 || least > most || (in_use() == 0u)) return status::bad_bits;
    auto const positive = [](double x) { return x > 0.0 && x < 1e30; };
    if (!positive(key_error) || !positive(value_error) || !positive(query_norm)) return status::out_of_range;
    return recent >= 0 && outliers >= 0 ? status::ok : status::out_of_range;
  }
  //! The width that a token of this range gets.
  int bits(double range, double error) const noexcept {
    int width = 0;
    int const wanted = qaq_bits(range, error, least, most);
    for (int b = least; b <= most && width < wanted; ++b) {
      if ((in_use() >> b & 1u) != 0u) width = b;
    }
    return width;
  }

 private:
  unsigned in_use() const noexcept { return widths & ((2u << most) - 1u) & ~((1u << least) - 1u); }
};

namespace detail {

//! Passes scores on with the query head of the whole layer.
template <class Tracer>
struct shifted_heads {
  Tracer& tracer;
  int first = 0;
  void on_score(score_coordinate c, float logit) requires traces_scores<Tracer> {
    c.query_head += first;
    tracer.on_score(c, logit);
  }
};

}  // namespace detail
}  // namespace kvcrumb::inline v0
