// SPDX-License-Identifier: Apache-2.0
//! @file k-means in the plane.
#pragma once

#include <cstddef>
#include <vector>

#include "kvcrumb/config.hpp"

namespace kvcrumb::inline v0 {

namespace detail {

//! k-means of points (x, y) in plain Euclidean distance: k-means++ seeds, Lloyd's iteration, best of
//! `restarts`; the same result in every run of a program. No cluster stays empty.
class plane_clusters {
 public:
  plane_clusters(std::vector<double> const& x, std::vector<double> const& y, int clusters)
      : x_{x}, y_{y}, n_{static_cast<int>(x.size())}, k_{clusters} {}

  //! Cluster of each point, numbered in the order of their first points.
  std::vector<int> best(int restarts) {
    std::vector<int> result;
    double least = 0.0;
    for (int i = 0; i < restarts; ++i) {
      std::vector<int> const labels = run();
      double const sum = inertia(labels);
      if (result.empty() || sum < least) {
        least = sum;
        result = labels;
      }
    }
    std::vector<int> number(static_cast<std::size_t>(k_), -1);
    int used = 0;
    for (int& label : result) {
      int& n = number[static_cast<std::size_t>(label)];
      if (n < 0) n = used++;
      label = n;
    }
    return result;
  }

 private:
  double distance(int i, int c) const {
    auto const p = static_cast<std::size_t>(i), q = static_cast<std::size_t>(c);
    return (x_[p] - cx_[q]) * (x_[p] - cx_[q]) + (y_[p] - cy_[q]) * (y_[p] - cy_[q]);
  }
  double random() {  // splitmix64, in [0, 1)
    std::uint64_t z = state_ += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return static_cast<double>((z ^ (z >> 31)) >> 11) * 0x1p-53;
  }
  int nearest(int i) const {
    int best = 0;
    for (int c = 1; c < static_cast<int>(cx_.size()); ++c)
      best = distance(i, c) < distance(i, best) ? c : best;
    return best;
  }
  void seed() {
    cx_.clear();
    cy_.clear();
    for (int c = 0; c < k_; ++c) {
      int chosen = static_cast<int>(random() * n_);
      if (c > 0) {
        double total = 0.0;
        for (int i = 0; i < n_; ++i)
          total += distance(i, nearest(i));
        double left = random() * total;
        for (int i = 0; i < n_ && total > 0.0; ++i) {
          double const d = distance(i, nearest(i));
          if (d > 0.0) chosen = i;
          left -= d;
          if (left < 0.0) break;
        }
      }
      cx_.push_back(x_[static_cast<std::size_t>(chosen)]);
      cy_.push_back(y_[static_cast<std::size_t>(chosen)]);
    }
  }
  //! An empty cluster takes the point that lies farthest from its centre in a cluster of several.
  void fill_empty(std::vector<int>& labels, std::vector<int>& sizes) const {
    for (int c = 0; c < k_; ++c) {
      if (sizes[static_cast<std::size_t>(c)] > 0) continue;
      int taken = -1;
      for (int i = 0; i < n_; ++i) {
        int const from = labels[static_cast<std::size_t>(i)];
        if (sizes[static_cast<std::size_t>(from)] < 2) continue;
        if (taken < 0 || distance(i, from) > distance(taken, labels[static_cast<std::size_t>(taken)]))
          taken = i;
      }
      --sizes[static_cast<std::size_t>(labels[static_cast<std::size_t>(taken)])];
      labels[static_cast<std::size_t>(taken)] = c;
      ++sizes[static_cast<std::size_t>(c)];
    }
  }
  std::vector<int> run() {
    seed();
    std::vector<int> labels, before;
    for (int round = 0; round < 100; ++round) {
      before = labels;
      std::vector<int> sizes(static_cast<std::size_t>(k_), 0);
      labels.assign(static_cast<std::size_t>(n_), 0);
      for (int i = 0; i < n_; ++i)
        ++sizes[static_cast<std::size_t>(labels[static_cast<std::size_t>(i)] = nearest(i))];
      fill_empty(labels, sizes);
      if (labels == before) break;
      cx_.assign(cx_.size(), 0.0);
      cy_.assign(cy_.size(), 0.0);
      for (std::size_t i = 0; i < labels.size(); ++i) {
        auto const c = static_cast<std::size_t>(labels[i]);
        cx_[c] += x_[i] / sizes[c];
        cy_[c] += y_[i] / sizes[c];
      }
    }
    return labels;
  }
  double inertia(std::vector<int> const& labels) const {
    double sum = 0.0;
    for (int i = 0; i < n_; ++i)
      sum += distance(i, labels[static_cast<std::size_t>(i)]);
    return sum;
  }

  std::vector<double> const& x_;
  std::vector<double> const& y_;
  int n_, k_;
  std::uint64_t state_ = 0;
  std::vector<double> cx_, cy_;
};

}  // namespace detail
}  // namespace kvcrumb::inline v0
