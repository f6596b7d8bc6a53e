// SPDX-License-Identifier: Apache-2.0
//! @file Exact attention of query tokens over an explicit list of keys and values, in double precision.
#pragma once

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace kvcrumb::inline v0::reference {

//! What turns dot products into weights.
struct attention_arguments {
  double softmax_scale = 1.0;  //!< usually 1 / sqrt(key_dim)
  double soft_cap = 0.0;       //!< c > 0: logit = c * tanh(softmax_scale * <q, k> / c); 0: off
  std::int64_t window = 0;     //!< w > 0: the query at p sees key positions > p - w, w with its own; 0: off
  bool causal = true;          //!< the query at p sees key positions <= p
  //! A learned logit that joins the denominator and has no value. Natural logarithm, already scaled, never
  //! capped.
  std::optional<double> sink_logit{};
};

//! The keys and values of one kv head, in any order.
struct key_list {
  std::span<double const> keys;             //!< [key][key_dim]
  std::span<double const> values;           //!< [key][value_dim]
  std::span<std::int64_t const> positions;  //!< [key], position of the token in the sequence
  std::size_t key_dim = 0;
  std::size_t value_dim = 0;
};

//! Attention of one query row.
struct attention_row {
  std::vector<double> output;   //!< [value_dim]
  double log_sum_exp = 0.0;     //!< natural logarithm of sum(exp(logit)), the sink logit included
  std::vector<double> weights;  //!< [key], 0 for a key out of sight; with a sink the sum is below 1
};

//! True where the query at `query_position` may look at the key at `key_position`.
[[nodiscard]] inline bool is_visible(std::int64_t query_position, std::int64_t key_position,
                                     attention_arguments const& arguments) {
  if (arguments.causal && key_position > query_position) { return false; }
  if (arguments.window > 0 && key_position <= query_position - arguments.window) { return false; }
  return true;
}

//! The logit of one pair: scaled, then capped.
[[nodiscard]] inline double attention_logit(std::span<double const> query, std::span<double const> key,
                                            attention_arguments const& arguments) {
  assert(query.size() == key.size());
  double dot = 0.0;
  for (std::size_t c = 0; c < query.size(); ++c) { dot += query[c] * key[c]; }
  double const scaled = arguments.softmax_scale * dot;
  return arguments.soft_cap > 0.0 ? arguments.soft_cap * std::tanh(scaled / arguments.soft_cap) : scaled;
}

//! Attention of one query over one list of keys.
//!
//! Requires `query` [key_dim]. Where nothing is visible and there is no sink: output 0, log_sum_exp
//! -infinity, weights 0. With a sink only: output 0, log_sum_exp = sink_logit. The softmax takes two passes
//! (largest logit first, then the exponentials), so logits of any finite size are safe.
[[nodiscard]] inline attention_row attend(std::span<double const> query, std::int64_t query_position,
                                          key_list const& list, attention_arguments const& arguments) {
  std::size_t const count = list.positions.size();
  assert(query.size() == list.key_dim);
  assert(list.keys.size() == count * list.key_dim && list.values.size() == count * list.value_dim);
  double const minus_infinity = -std::numeric_limits<double>::infinity();

  std::vector<double> logits(count, minus_infinity);
  for (std::size_t t = 0; t < count; ++t) {
    if (is_visible(query_position, list.positions[t], arguments)) {
      logits[t] = attention_logit(query, list.keys.subspan(t * list.key_dim, list.key_dim), arguments);
    }
  }

  attention_row row;
  row.output.assign(list.value_dim, 0.0);
  row.weights.assign(count, 0.0);
  row.log_sum_exp = minus_infinity;

  double largest = arguments.sink_logit.value_or(minus_infinity);
  for (double const logit : logits) { largest = std::max(largest, logit); }
  if (largest == minus_infinity) { return row; }

  double sum = arguments.sink_logit ? std::exp(*arguments.sink_logit - largest) : 0.0;
  for (double const logit : logits) { sum += std::exp(logit - largest); }
  row.log_sum_exp = largest + std::log(sum);

  for (std::size_t t = 0; t < count; ++t) {
    if (logits[t] == minus_infinity) { continue; }  // the value row of a key out of sight may hold anything
    row.weights[t] = std::exp(logits[t] - largest) / sum;
    for (std::size_t c = 0; c < list.value_dim; ++c) {
      row.output[c] += row.weights[t] * list.values[t * list.value_dim + c];
    }
  }
  return row;
}

//! All heads of a layer with grouped queries: query head h reads kv head h / (query_heads / kv_heads).
struct grouped_attention_input {
  std::span<double const> queries;                //!< [query head][query][key_dim]
  std::span<double const> keys;                   //!< [kv head][token][key_dim]
  std::span<double const> values;                 //!< [kv head][token][value_dim]
  std::span<std::int64_t const> query_positions;  //!< [query]
  std::span<std::int64_t const> key_positions;    //!< [token], the same for every kv head
  std::span<double const> sink_logits{};          //!< [query head]; empty: arguments.sink_logit for all
  std::size_t query_heads = 0;
  std::size_t kv_heads = 0;
  std::size_t key_dim = 0;
  std::size_t value_dim = 0;
};

//! Attention of all query heads.
struct grouped_attention_output {
  std::vector<double> output;       //!< [query head][query][value_dim]
  std::vector<double> log_sum_exp;  //!< [query head][query]
  std::vector<double> weights;      //!< [query head][query][token]
};

//! Calls attend() for every query head and query. Requires kv_heads to divide query_heads.
[[nodiscard]] inline grouped_attention_output attend_grouped(grouped_attention_input const& input,
                                                             attention_arguments const& arguments) {
  std::size_t const tokens = input.key_positions.size();
  std::size_t const queries = input.query_positions.size();
  assert(input.kv_heads > 0 && input.query_heads % input.kv_heads == 0);
  assert(input.queries.size() == input.query_heads * queries * input.key_dim);
  assert(input.keys.size() == input.kv_heads * tokens * input.key_dim);
  assert(input.values.size() == input.kv_heads * tokens * input.value_dim);
  assert(input.sink_logits.empty() || input.sink_logits.size() == input.query_heads);
  std::size_t const queries_per_kv_head = input.query_heads / input.kv_heads;

  grouped_attention_output result;
  for (std::size_t head = 0; head < input.query_heads; ++head) {
    std::size_t const kv_head = head / queries_per_kv_head;
    key_list const list{input.keys.subspan(kv_head * tokens * input.key_dim, tokens * input.key_dim),
                        input.values.subspan(kv_head * tokens * input.value_dim, tokens * input.value_dim),
                        input.key_positions, input.key_dim, input.value_dim};
    attention_arguments of_head = arguments;
    if (!input.sink_logits.empty()) { of_head.sink_logit = input.sink_logits[head]; }

    for (std::size_t q = 0; q < queries; ++q) {
      auto const query = input.queries.subspan((head * queries + q) * input.key_dim, input.key_dim);
      attention_row const row = attend(query, input.query_positions[q], list, of_head);
      result.output.insert(result.output.end(), row.output.begin(), row.output.end());
      result.log_sum_exp.push_back(row.log_sum_exp);
      result.weights.insert(result.weights.end(), row.weights.begin(), row.weights.end());
    }
  }
  return result;
}

}  // namespace kvcrumb::inline v0::reference
