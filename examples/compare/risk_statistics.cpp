// SPDX-License-Identifier: Apache-2.0
//! @file risk_statistics: see risk_statistics.hpp.
#include "risk_statistics.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "picture.hpp"

namespace kvcrumb_compare {

namespace {

std::vector<double> norms_of_rows(std::span<float const> rows, std::int64_t width, bool squares) {
  std::vector<double> norms(rows.size() / static_cast<std::size_t>(width), 0.0);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    double const x = static_cast<double>(rows[i]);
    norms[i / static_cast<std::size_t>(width)] += squares ? x * x : std::fabs(x);
  }
  if (squares) {
    for (double& x : norms)
      x = std::sqrt(x);
  }
  return norms;
}

std::vector<double> over_median(std::span<double const> values) {
  std::vector<double> ratios(values.begin(), values.end());
  double const middle = median(ratios);
  for (double& x : ratios)
    x = middle > 0.0 ? x / middle : 0.0;
  return ratios;
}

//! How many of the ratios, given in rising order, are outliers.
std::size_t outliers_among(std::vector<double> const& rising) {
  std::size_t const most = std::min<std::size_t>(risk_rule::most_outliers, rising.size() / 4);
  for (std::size_t n = most; n > 0; --n) {
    if (rising[n - 1] <= risk_rule::outlier_norm && rising[n] >= risk_rule::outlier_gap * rising[n - 1])
      return rising[n] > 0.0 ? n : 0;
  }
  return 0;
}

channel_statistics statistics_of_channels(std::span<float const> rows, std::int64_t width) {
  auto const channels = static_cast<std::size_t>(width);
  std::vector<double> sums(channels, 0.0), peaks(channels, 0.0);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    double const size = std::fabs(static_cast<double>(rows[i]));
    sums[i % channels] += size;
    peaks[i % channels] = std::max(peaks[i % channels], size);
  }
  auto const ratios = over_median(sums), peak_ratios = over_median(peaks);
  channel_statistics s;
  auto const top = std::max_element(ratios.begin(), ratios.end());
  s.largest = *top;
  s.largest_at = top - ratios.begin();
  s.largest_peak = *std::max_element(peak_ratios.begin(), peak_ratios.end());
  s.above_five = std::count_if(ratios.begin(), ratios.end(),
                               [](double const x) { return x > risk_rule::strong_channel; });
  return s;
}

bias_statistics statistics_of_bias(std::span<float const> rows, std::int64_t width) {
  channel_moments const m = channel_moments_of(rows, width);
  bias_statistics s;
  double of_means = 0.0, of_all = 0.0;
  std::vector<double> sizes;
  for (std::size_t d = 0; d < m.mean.size(); ++d) {
    double const mean = m.mean[d], deviation = m.deviation[d];
    of_means += mean * mean;
    of_all += mean * mean + deviation * deviation;
    if (deviation > 0.0) sizes.push_back(std::fabs(mean) / deviation);
  }
  if (of_all > 0.0) s.energy_share = of_means / of_all;
  if (!sizes.empty()) s.largest_size = *std::max_element(sizes.begin(), sizes.end());
  s.median_size = median(std::move(sizes));
  return s;
}

}  // namespace

channel_moments channel_moments_of(std::span<float const> rows, std::int64_t width) {
  auto const channels = static_cast<std::size_t>(width);
  double const tokens = static_cast<double>(rows.size() / channels);
  channel_moments m{std::vector<double>(channels, 0.0), std::vector<double>(channels, 0.0)};
  for (std::size_t i = 0; i < rows.size(); ++i)
    m.mean[i % channels] += static_cast<double>(rows[i]);
  for (double& x : m.mean)
    x /= tokens;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    double const e = static_cast<double>(rows[i]) - m.mean[i % channels];
    m.deviation[i % channels] += e * e;
  }
  for (double& x : m.deviation)
    x = std::sqrt(x / tokens);
  return m;
}

std::span<float const> head_rows(recorded_layer const& layer, std::vector<float> const& tensor,
                                 std::int64_t head) {
  std::size_t const size = tensor.size() / static_cast<std::size_t>(layer.kv_heads);
  return std::span<float const>(tensor).subspan(static_cast<std::size_t>(head) * size, size);
}

token_statistics statistics_of_norms(std::span<double const> keys, std::span<double const> values) {
  std::vector<double> const ratios = over_median(keys), value_ratios = over_median(values);
  token_statistics s;
  auto const [low, high] = std::minmax_element(ratios.begin(), ratios.end());
  s.smallest = *low;
  s.smallest_at = low - ratios.begin();
  s.largest = *high;
  s.largest_at = high - ratios.begin();
  auto const below = [&](double limit) {
    return std::count_if(ratios.begin(), ratios.end(), [&](double const x) { return x < limit; });
  };
  s.below_70 = below(0.7);
  s.below_50 = below(0.5);
  s.below_30 = below(0.3);
  std::vector<std::size_t> order(ratios.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](auto a, auto b) { return ratios[a] < ratios[b]; });
  std::vector<double> rising;
  for (std::size_t const at : order)
    rising.push_back(ratios[at]);
  for (std::size_t i = 0; i < outliers_among(rising); ++i) {
    s.outliers.push_back({static_cast<std::int64_t>(order[i]), rising[i], value_ratios[order[i]]});
  }
  return s;
}

layer_statistics statistics_of(recorded_layer const& layer) {
  layer_statistics s;
  auto const tokens = static_cast<std::size_t>(layer.tokens);
  std::vector<double> all_keys(tokens, 0.0), all_values(tokens, 0.0);
  for (std::int64_t head = 0; head < layer.kv_heads; ++head) {
    auto const k = head_rows(layer, layer.k, head), v = head_rows(layer, layer.v, head);
    auto const keys = norms_of_rows(k, layer.head_dim, false),
               values = norms_of_rows(v, layer.value_dim, false);
    for (std::size_t t = 0; t < tokens; ++t) {
      all_keys[t] += keys[t];
      all_values[t] += values[t];
    }
    head_statistics h;
    h.tokens = statistics_of_norms(keys, values);
    h.channels = statistics_of_channels(k, layer.head_dim);
    h.bias = statistics_of_bias(k, layer.head_dim);
    double const of_values = median(norms_of_rows(v, layer.value_dim, true));
    if (of_values > 0.0) h.kv_norm_ratio = median(norms_of_rows(k, layer.head_dim, true)) / of_values;
    s.heads.push_back(std::move(h));
  }
  s.tokens = statistics_of_norms(all_keys, all_values);
  return s;
}

}  // namespace kvcrumb_compare
