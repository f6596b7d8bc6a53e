// SPDX-License-Identifier: Apache-2.0
//! @file Random projections whose signs are kept as a sketch of a vector.
#pragma once

#include <cmath>
#include <span>

#include "kvcrumb/numeric/arithmetic.hpp"
#include "kvcrumb/numeric/rows.hpp"
#include "kvcrumb/numeric/tree_fold.hpp"
#include "kvcrumb/status.hpp"

namespace kvcrumb::inline v0 {

//! Law of the rows of a projection. In both, a row is equally likely to point in any direction.
enum class projection_kind : std::uint8_t {
  orthogonal,  //!< every head_dim rows are an orthogonal basis, each row of length sqrt(head_dim)
  gaussian,    //!< independent N(0, 1) entries
};

//! A projection S of `count` rows in the caller's memory, which must outlive every scheme that holds it. The
//! estimate of <x, y> from signs of x is unit / count * |x| * sum_j sign(<s_j, x>) <s_j, y>, and its mean
//! over projections is <x, y>.
struct sketch_projection {
  float const* rows = nullptr;  //!< [count][head_dim], filled by fill_projection
  int count = 0;
  int head_dim = 0;
  projection_kind kind = projection_kind::orthogonal;

  //! Whether rows [0, wanted) exist for rows of `width` channels.
  constexpr status fits(int wanted, int width) const noexcept {
    if (rows == nullptr) return status::null_pointer;
    if (width != head_dim) return status::bad_head_dim;
    return wanted <= count ? status::ok : status::bad_shape;
  }
  constexpr float const* row(int j) const noexcept { return rows + static_cast<std::int64_t>(j) * head_dim; }

  //! Sign of <s_j, x>: 1 if positive, else 0; the sum is taken in tree order, as it decides a byte.
  unsigned sign(int j, float const* x) const noexcept {
    float const* s = row(j);
    auto const product = [&](int d) { return mul_rn(s[d], x[d]); };
    return is_positive_bits(tree_fold(head_dim, product, add_rn)) ? 1u : 0u;
  }
  //! out[j] = <s_j, x> for j in [0, n). Cost: n head_dim products.
  void project(float const* x, int n, float* out) const noexcept {
    for (int j = 0; j < n; ++j)
      out[j] = dot(row(j), x, head_dim);
  }
  //! 1 / E|<s, u>| of a unit vector u: sqrt(pi / 2) for Gaussian rows. For rows of fixed length sqrt(d) it is
  //! sqrt(pi / d) Gamma((d + 1) / 2) / Gamma(d / 2), here its series (error below 2e-6 from d = 8 on); the
  //! factor of the Gaussian would overestimate every score by 1 + 1 / (4 d).
  float unit() const noexcept {
    if (kind == projection_kind::gaussian) return 1.25331414f;
    double const r = 1.0 / head_dim;
    return static_cast<float>(1.2533141373155003 *
                              (1.0 + r * (-0.25 + r * (0.03125 + r * (0.0390625 - r * 0.01025390625)))));
  }
  //! FNV-1a over all entries, so that a saved cache is only read back with the same projection.
  std::uint64_t id() const noexcept {
    std::uint64_t hash = 0xCBF29CE484222325u ^ static_cast<std::uint64_t>(kind);
    std::int64_t const n = rows == nullptr ? 0 : static_cast<std::int64_t>(count) * head_dim;
    for (std::int64_t i = 0; i < n; ++i)
      hash = (hash ^ float_bits(rows[i])) * 0x100000001B3u;
    return hash;
  }
};

namespace detail {

//! Steps in double of one rounding each, whatever the flags.
inline double wide_sum(double a, double b) noexcept { return hidden_step(hidden_step(a) + hidden_step(b)); }
inline double wide_product(double a, double b) noexcept {
  return hidden_step(hidden_step(a) * hidden_step(b));
}
inline double wide_quotient(double a, double b) noexcept {
  return hidden_step(hidden_step(a) / hidden_step(b));
}
inline double wide_root(double x) noexcept { return hidden_step(::sqrt(hidden_step(x))); }

//! Natural logarithm of x in (0, 1) from these steps alone: equal bits everywhere, unlike the C library's.
inline double wide_log(double x) noexcept {
  int exponent = 0;
  for (; x < 0.70710678118654752; --exponent)
    x = wide_product(x, 2.0);
  double const s = wide_quotient(wide_sum(x, -1.0), wide_sum(x, 1.0));  // |s| < 0.172
  double const square = wide_product(s, s);
  double series = 0.0;
  for (int k = 25; k >= 1; k -= 2)
    series = wide_sum(wide_product(series, square), wide_quotient(2.0, k));
  return wide_sum(wide_product(s, series), wide_product(exponent, 0.69314718055994531));
}

//! N(0, 1) by Marsaglia's polar method on SplitMix64.
class normal_source {
 public:
  explicit normal_source(std::uint64_t seed) noexcept : state_{seed} {}

  double next() noexcept {
    if (has_spare_) {
      has_spare_ = false;
      return spare_;
    }
    for (;;) {
      double const u = uniform(), v = uniform();
      double const s = wide_sum(wide_product(u, u), wide_product(v, v));
      if (s >= 1.0 || s == 0.0) continue;
      double const f = wide_root(wide_quotient(wide_product(-2.0, wide_log(s)), s));
      spare_ = wide_product(v, f);
      has_spare_ = true;
      return wide_product(u, f);
    }
  }

 private:
  //! In [-1, 1), exact.
  double uniform() noexcept {
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return wide_sum(static_cast<double>(static_cast<std::int64_t>((z ^ (z >> 31)) >> 11)) * 0x1p-52, -1.0);
  }
  std::uint64_t state_;
  double spare_ = 0.0;
  bool has_spare_ = false;
};

inline double wide_dot(double const* a, float const* b, int n) noexcept {
  double sum = 0.0;
  for (int d = 0; d < n; ++d)
    sum = wide_sum(sum, wide_product(a[d], static_cast<double>(b[d])));
  return sum;
}

}  // namespace detail

//! Largest head_dim of a projection.
inline constexpr int max_projection_dim = 1024;

//! Fills `memory`, at least count * head_dim floats, from a seed and describes it in `out`. The same seed
//! gives the same bytes on every machine. orthogonal: rows are drawn as Gaussian and orthogonalized one after
//! the other in double (the Q factor of a QR decomposition), beginning anew every head_dim rows; a last block
//! may be shorter. Cost: 4 count head_dim^2 double operations (orthogonal), once per model.
inline status fill_projection(projection_kind kind, std::uint64_t seed, int count, int head_dim,
                              std::span<float> memory, sketch_projection& out) noexcept {
  if (memory.data() == nullptr) return status::null_pointer;
  if (head_dim < 1 || head_dim > max_projection_dim) return status::bad_head_dim;
  if (count < 1 || count > (1 << 20)) return status::bad_shape;
  std::int64_t const needed = static_cast<std::int64_t>(count) * head_dim;
  if (static_cast<std::int64_t>(memory.size()) < needed) return status::buffer_too_small;
  detail::normal_source normal{seed};
  double v[max_projection_dim];
  for (int j = 0; j < count; ++j) {
    float* row = memory.data() + static_cast<std::int64_t>(j) * head_dim;
    for (int d = 0; d < head_dim; ++d)
      v[d] = normal.next();
    if (kind == projection_kind::orthogonal) {
      // Three times: the first pass may cancel nearly all of v, the rounded rows are orthogonal to 2^-24
      // only.
      for (int pass = 0; pass < 3; ++pass) {
        for (int i = j - j % head_dim; i < j; ++i) {
          float const* other = memory.data() + static_cast<std::int64_t>(i) * head_dim;
          double const part = detail::wide_quotient(detail::wide_dot(v, other, head_dim), -head_dim);
          for (int d = 0; d < head_dim; ++d)
            v[d] = detail::wide_sum(v[d], detail::wide_product(part, static_cast<double>(other[d])));
        }
        double square = 0.0;
        for (int d = 0; d < head_dim; ++d)
          square = detail::wide_sum(square, detail::wide_product(v[d], v[d]));
        double const factor = detail::wide_root(detail::wide_quotient(head_dim, square));
        for (int d = 0; d < head_dim; ++d)
          v[d] = detail::wide_product(v[d], factor);
      }
    }
    for (int d = 0; d < head_dim; ++d)
      row[d] = static_cast<float>(v[d]);
  }
  out = {memory.data(), count, head_dim, kind};
  return status::ok;
}

}  // namespace kvcrumb::inline v0
