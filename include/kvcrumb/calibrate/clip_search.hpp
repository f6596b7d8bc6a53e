// SPDX-License-Identifier: Apache-2.0
//! @file Search of clip factors: least squared error of rows or of the attention output (SKVQ).
#pragma once

#include <cmath>
#include <vector>

#include "kvcrumb/codec/clipped_affine.hpp"
#include "kvcrumb/status.hpp"

namespace kvcrumb::inline v0 {

//! Clip factors that are tried: steps + 1 of them from 1 down to `least`; steps = 0: only 1.
struct clip_grid {
  float least = 0.3f;  //!< in (0, 1]
  int steps = 35;      //!< 0 ... 1000

  status check() const noexcept {
    bool const ok = is_positive_bits(least) && least <= 1.0f && steps >= 0 && steps <= 1000;
    return ok ? status::ok : status::out_of_range;
  }
  float at(int i) const noexcept {
    return i == 0 ? 1.0f : 1.0f - static_cast<float>(i) * (1.0f - least) / static_cast<float>(steps);
  }
};

namespace detail {

//! One side of one kv head, channels in the order of their places, and the plan that is being made.
template <class Codec>
struct calibrated_side {
  std::vector<float> x;  //!< [tokens][width]
  int width = 0;
  std::int64_t tokens = 0, sinks = 0;
  int groups = 0;
  std::uint16_t const* ends = nullptr;
  float* clip = nullptr;

  int begin(int g) const { return g == 0 ? 0 : ends[g - 1]; }
  float const* row(std::int64_t t) const { return x.data() + t * width; }
  //! x_hat - x of group g, [tokens][end - begin]; 0 for sinks.
  std::vector<double> errors(int g, float factor) const {
    int const first = begin(g), n = ends[g] - first;
    std::vector<double> e(static_cast<std::size_t>(tokens * n), 0.0);
    for (std::int64_t t = sinks; t < tokens; ++t) {
      float const* in = row(t) + first;
      range_statistics range = range_statistics::of(in[0]);
      for (int p = 1; p < n; ++p)
        range = range_statistics::merged(range, range_statistics::of(in[p]));
      clipped_params const params = Codec::fit(range, factor);
      for (int p = 0; p < n; ++p) {
        float const back = Codec::decode(Codec::encode(in[p], params), params.scale, params.minimum);
        e[static_cast<std::size_t>(t * n + p)] = static_cast<double>(back) - static_cast<double>(in[p]);
      }
    }
    return e;
  }
  //! Gives group g the factor of least cost(errors); of equal ones the largest.
  template <class Cost>
  void choose(int g, clip_grid const& grid, Cost cost) {
    double least = 0.0;
    for (int i = 0; i <= grid.steps; ++i) {
      float const factor = grid.at(i);
      double const c = cost(errors(g, factor));
      if (i == 0 || c < least) {
        least = c;
        clip[g] = factor;
      }
    }
  }
  void choose_by_rows(clip_grid const& grid) {
    for (int g = 0; g < groups; ++g) {
      choose(g, grid, [](std::vector<double> const& e) {
        double sum = 0.0;
        for (double const v : e)
          sum += v * v;
        return sum;
      });
    }
  }
};

//! Exact causal attention of the recorded queries of one kv head.
struct calibration_attention {
  std::int64_t tokens = 0;
  int width = 0;
  std::vector<float> q;                 //!< [rows][width], channels
  std::vector<std::int64_t> seen;       //!< [rows], tokens in sight
  std::vector<double> logits, weights;  //!< [rows][tokens]

  std::size_t rows() const { return seen.size(); }

  //! exp(l - max) / sum over the tokens in sight; 0 elsewhere.
  void softmax(std::size_t r, double const* l, double* w) const {
    double top = l[0], sum = 0.0;
    for (std::int64_t t = 1; t < seen[r]; ++t)
      top = l[t] > top ? l[t] : top;
    for (std::int64_t t = 0; t < tokens; ++t)
      sum += w[t] = t < seen[r] ? std::exp(l[t] - top) : 0.0;
    for (std::int64_t t = 0; t < seen[r]; ++t)
      w[t] /= sum;
  }
  //! sum_t w[t] v[t][0 ... n) into o.
  template <class T>
  void weighted(double const* w, T const* v, int n, std::vector<double>& o) const {
    o.assign(static_cast<std::size_t>(n), 0.0);
    for (std::int64_t t = 0; t < tokens; ++t) {
      if (w[t] == 0.0) continue;
      for (int p = 0; p < n; ++p)
        o[static_cast<std::size_t>(p)] += w[t] * static_cast<double>(v[t * n + p]);
    }
  }
};

//! Squared error of the output when only values are packed: groups do not meet, so each is searched alone.
template <class Codec>
void choose_value_clips(calibrated_side<Codec>& values, calibration_attention const& a,
                        clip_grid const& grid) {
  std::vector<double> o;
  for (int g = 0; g < values.groups; ++g) {
    values.choose(g, grid, [&](std::vector<double> const& e) {
      double sum = 0.0;
      for (std::size_t r = 0; r < a.rows(); ++r) {
        a.weighted(a.weights.data() + r * static_cast<std::size_t>(a.tokens), e.data(),
                   values.ends[g] - values.begin(g), o);
        for (double const v : o)
          sum += v * v;
      }
      return sum;
    });
  }
}

//! Squared error of the output when only keys are packed: one group after the other, the others as they are.
template <class Codec>
void choose_key_clips(calibrated_side<Codec>& keys, std::uint16_t const* order, std::vector<float> const& v,
                      calibration_attention const& a, clip_grid const& grid) {
  auto const tokens = static_cast<std::size_t>(a.tokens);
  double const scale = 1.0 / std::sqrt(static_cast<double>(a.width));
  auto const add = [&](int g, std::vector<double> const& e, double sign, std::vector<double>& logits) {
    int const first = keys.begin(g), n = keys.ends[g] - first;
    for (std::size_t r = 0; r < a.rows(); ++r) {
      float const* q = a.q.data() + r * static_cast<std::size_t>(a.width);
      for (std::size_t t = 0; t < tokens; ++t) {
        double sum = 0.0;
        for (int p = 0; p < n; ++p)
          sum += static_cast<double>(q[order[first + p]]) *
                 e[t * static_cast<std::size_t>(n) + static_cast<std::size_t>(p)];
        logits[r * tokens + t] += sign * scale * sum;
      }
    }
  };
  std::vector<double> current = a.logits, weights(tokens), exact, o;
  for (int g = 0; g < keys.groups; ++g)
    add(g, keys.errors(g, keys.clip[g]), 1.0, current);
  for (int g = 0; g < keys.groups; ++g) {
    add(g, keys.errors(g, keys.clip[g]), -1.0, current);
    keys.choose(g, grid, [&](std::vector<double> const& e) {
      std::vector<double> logits = current;
      add(g, e, 1.0, logits);
      double sum = 0.0;
      for (std::size_t r = 0; r < a.rows(); ++r) {
        a.softmax(r, logits.data() + r * tokens, weights.data());
        for (std::size_t t = 0; t < tokens; ++t)
          weights[t] -= a.weights[r * tokens + t];
        a.weighted(weights.data(), v.data(), a.width, o);
        for (double const d : o)
          sum += d * d;
      }
      return sum;
    });
    add(g, keys.errors(g, keys.clip[g]), 1.0, current);
  }
}

}  // namespace detail

}  // namespace kvcrumb::inline v0
