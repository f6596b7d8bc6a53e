// SPDX-License-Identifier: Apache-2.0
//! @file columns: see report_columns.hpp.
#include "report_columns.hpp"

#include <cmath>

#include <fmt/format.h>

#include "text.hpp"

namespace kvcrumb_compare {
namespace {

std::string fixed(std::optional<double> value, int digits) {
  if (!value) return "-";
  if (!std::isfinite(*value)) return fmt::format("{}", *value);
  return fmt::format("{:.{}f}", *value, digits);
}

// Four decimals; an exponent for what these would show as zero.
std::string error_text(std::optional<double> value) {
  if (!value || *value == 0) return value ? "0" : "-";
  if (std::fabs(*value) < 0.00095) return fmt::format("{:.1e}", *value);
  return fixed(value, 4);
}

std::string percent(std::optional<double> share) { return share ? fixed(100 * *share, 1) : "-"; }

}  // namespace

std::vector<column> const& columns() {
  static std::vector<column> const all{
      {"scheme", "", "The name of the system; see the list below.",
       [](scheme_result const& r) { return printable(r.scheme, 40); }},
      {"bits", "per value",
       "Bits of memory per number of the cache, keys and values together, measured on this input: "
       "codes, parameters, masks, tokens kept apart and the full-precision tail.",
       [](scheme_result const& r) { return fixed(r.bits_per_value, 3); }},
      {"compression", "vs fp16", "Bytes of the cache in fp16 divided by the measured bytes.",
       [](scheme_result const& r) { return fixed(r.compression, 2) + "x"; }},
      {"output", "rel L2",
       "Error of the attention output: |o' - o| / |o| per query and head against exact attention in "
       "double precision; the mean.",
       [](scheme_result const& r) { return error_text(r.output_rel_l2_mean); }},
      {"output p99", "rel L2", "The same error at its 99th percentile: the worst queries.",
       [](scheme_result const& r) { return error_text(r.output_rel_l2_p99); }},
      {"weights KL", "nats",
       "Kullback-Leibler divergence from the exact attention weights to those of the scheme, mean.",
       [](scheme_result const& r) { return error_text(r.attention_kl_mean); }},
      {"top-1", "% equal",
       "Share of queries whose largest attention weight lies on the same token as in exact attention.",
       [](scheme_result const& r) { return percent(r.top1_agreement); }},
      {"keys", "rel L2", "Error of the keys: |k' - k| / |k|.",
       [](scheme_result const& r) { return error_text(r.k_rel_l2); }},
      {"values", "rel L2", "Error of the values: |v' - v| / |v|.",
       [](scheme_result const& r) { return error_text(r.v_rel_l2); }},
      {"traced", "tokens",
       "Outlier tokens that the scheme keeps apart in full precision, counted over layers and heads.",
       [](scheme_result const& r) { return fmt::format("{}", r.traced_tokens.size()); }},
      {"encode", "ms", "Time to quantize all keys and values of the input on this machine.",
       [](scheme_result const& r) { return fixed(r.encode_ms, 2); }},
      {"attend", "ms", "Time of the attention of all recorded queries over the packed cache on this machine.",
       [](scheme_result const& r) { return fixed(r.attend_ms, 2); }},
  };
  return all;
}

}  // namespace kvcrumb_compare
