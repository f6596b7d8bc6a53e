// SPDX-License-Identifier: Apache-2.0
//! @file Keys can be scored.
// expect: key_scheme
// expect: constraint
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
};
using rows = composed<affine<2>, per_row>;
kv_scheme<sketch, rows> s;
