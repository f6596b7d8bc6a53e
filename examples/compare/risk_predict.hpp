// SPDX-License-Identifier: Apache-2.0
//! @file risk_predict: what the errors of decoded rows do to attention, to first order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "risk_decode.hpp"

namespace kvcrumb_compare {

//! Queries of one layer and what they see, in double precision over the recorded rows.
struct query_probe {
  bool recorded = false;                //!< false: stand-ins made of the keys
  std::int64_t queries = 0;             //!< per query head
  std::int64_t query_heads = 0;         //!< those of the recording; as many as kv heads for stand-ins
  std::vector<std::int64_t> positions;  //!< [queries]; a query sees tokens 0 ... its position
  std::vector<double> q;                //!< [query_heads][queries][head_dim], scaled by 1 / sqrt(head_dim)
  std::vector<double> weights;          //!< [query_heads][queries][tokens]
  std::vector<double> output;           //!< [query_heads][queries][head_dim]
};

//! `count` of the last `window` recorded queries of each head, evenly spaced, the last one among them.
//! Requires queries.
query_probe probe_recorded(recorded_layer const& layer, std::int64_t count, std::int64_t window);

//! Stand-ins where nothing is recorded: query i of a head is the sum of its keys, each less the mean key and
//! with a sign of its own (stand_in_sign), scaled so that its logits over all tokens have the standard
//! deviation `spread`. So their covariance is that of the keys. They see every token.
query_probe probe_stand_in(recorded_layer const& layer, std::int64_t count, double spread);

//! +1 or -1: bit 32 of splitmix64 of (query << 32 | token).
double stand_in_sign(std::uint64_t query, std::uint64_t token);

//! Means over the queries of all heads. With dl = q (k' - k) / sqrt(d), p the exact weights and o the exact
//! output: key part |sum p (dl - <dl>) v| / |o|, value part |sum p (v' - v)| / |o|, output their vector sum,
//! divergence 1/2 sum p (dl - <dl>)^2, where <dl> = sum p dl.
struct prediction {
  double output = 0.0;
  double key_part = 0.0;
  double value_part = 0.0;
  double divergence = 0.0;  //!< nats
};

//! Requires decoded rows of the same layer. Queries whose exact output is zero are left out.
prediction predict(recorded_layer const& layer, query_probe const& probe, decoded_layer const& decoded);

//! Spearman's rank correlation (ties share their mean rank); 0 if either side is constant or there are fewer
//! than two.
double rank_correlation(std::span<double const> a, std::span<double const> b);

}  // namespace kvcrumb_compare
