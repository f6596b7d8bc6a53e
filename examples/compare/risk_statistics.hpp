// SPDX-License-Identifier: Apache-2.0
//! @file risk_statistics: the figures of recorded keys and values that decide how they can be quantized.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor_file.hpp"

namespace kvcrumb_compare {

//! What counts as an outlier; docs/risk.md has the reasons.
namespace risk_rule {
inline constexpr double outlier_norm = 0.5;  //!< an outlier token has at most so much of the median key norm,
inline constexpr double outlier_gap = 1.3;   //!< and the next larger norm is at least so many times as large
inline constexpr std::int64_t most_outliers = 8;  //!< a larger group is a broad distribution, not outliers
inline constexpr double some_channel = 2.0;       //!< largest over median mean |k| of the channels
inline constexpr double strong_channel = 5.0;
inline constexpr double extreme_channel = 10.0;
}  // namespace risk_rule

struct outlier_token {
  std::int64_t position = 0;
  double key_norm = 0.0;    //!< L1, over the median
  double value_norm = 0.0;  //!< likewise; attention sinks have small values, too
};

//! L1 norms of keys over their median.
struct token_statistics {
  double smallest = 0.0;
  std::int64_t smallest_at = 0;
  double largest = 0.0;
  std::int64_t largest_at = 0;
  std::int64_t below_70 = 0, below_50 = 0, below_30 = 0;  //!< tokens below 0.7, 0.5, 0.3
  std::vector<outlier_token> outliers;                    //!< by rising key norm
};

//! Mean |k| of each channel over the median channel.
struct channel_statistics {
  double largest = 0.0;
  std::int64_t largest_at = 0;
  double largest_peak = 0.0;    //!< the same of max |k|, which hides a constant bias
  std::int64_t above_five = 0;  //!< channels above 5
};

//! Key means over all tokens, which is where a bias of k_proj shows.
struct bias_statistics {
  double energy_share = 0.0;  //!< tokens * sum mean^2 / sum k^2, in [0, 1]
  double median_size = 0.0;   //!< |mean| / standard deviation of a channel: the median channel
  double largest_size = 0.0;  //!< the largest one; 0 for channels without any deviation and mean
};

struct head_statistics {
  token_statistics tokens;
  channel_statistics channels;
  bias_statistics bias;
  double kv_norm_ratio = 0.0;  //!< median L2 norm of keys / of values; 0 if values are 0
};

struct layer_statistics {
  std::vector<head_statistics> heads;
  token_statistics tokens;  //!< of key norms added over the heads, the rule of pool_scope::per_layer
};

//! Mean and standard deviation (divided by the count) of every channel; rows [tokens][width].
struct channel_moments {
  std::vector<double> mean, deviation;
};
channel_moments channel_moments_of(std::span<float const> rows, std::int64_t width);

//! The rows of one kv head of `tensor`, which is the k or v of `layer`.
std::span<float const> head_rows(recorded_layer const& layer, std::vector<float> const& tensor,
                                 std::int64_t head);

//! Statistics of norms [tokens] given with those of values. Requires equally many, at least one. A median of
//! 0 makes every ratio 0 and no outlier.
token_statistics statistics_of_norms(std::span<double const> keys, std::span<double const> values);

//! Everything above. Requires at least one token. Cost: a few passes over the rows.
layer_statistics statistics_of(recorded_layer const& layer);

}  // namespace kvcrumb_compare
