// SPDX-License-Identifier: Apache-2.0
//! @file Keys can be scored.
#include "kvcrumb/schemes.hpp"

using namespace kvcrumb;

struct sketch {
  static constexpr int append_tokens = 1;
  status supports(side, tile_shape, int) const { return status::ok; }
  std::int64_t section_bytes(side, tile_shape) const { return 64; }
  template <class Tracer>
  void encode(side, tile_shape, encode_request const&, Tracer&) const {}
  std::uint64_t state_id(int, int) const { return 0; }
  static void describe(description& d) { d << "sketch"; }
  static constexpr std::int64_t query_floats(int head_dim) { return head_dim; }
  void prepare_query(int, int, float const*, float*) const {}
  float score(tile_shape, float const*, std::byte const*, int) const { return 0.0f; }
};
using rows = composed<affine<2>, per_row>;
kv_scheme<sketch, rows> s;
