// SPDX-License-Identifier: Apache-2.0
//! @file What a tracer is: an observer passed as an argument. Tracing never changes a byte.
#pragma once

#include <concepts>

#include "kvcrumb/layout/tile_shape.hpp"

namespace kvcrumb::inline v0 {

//! Where an observed value belongs.
struct element_coordinate {
  side which = side::key;
  int head = 0;            //!< kv head
  std::int64_t token = 0;  //!< position in the sequence
  int dim = 0;             //!< channel
};

//! Where an observed score belongs.
struct score_coordinate {
  int query_head = 0;
  int query = 0;           //!< index of the query token in the call
  std::int64_t token = 0;  //!< position of the key
};

//! Optional hooks of a tracer; a tracer is any type with at least one of them.
template <class T>
concept traces_elements = requires(T& t, element_coordinate c) {
  t.on_element(c, 1.0f, 1.0f);
};
template <class T>
concept traces_rows = requires(T& t, float const* row) {
  t.on_row(side::key, 0, std::int64_t{0}, row, 128);
};
template <class T>
concept traces_scores = requires(T& t, score_coordinate c) {
  t.on_score(c, 1.0f);
};

//! A tracer observes; encode and attend call only the hooks it has:
//! - on_element(element_coordinate, x, x_hat): each encoded value and what it decodes to, in the scheme's
//!   own basis; not for isolated tokens
//! - on_row(side, head, token, row, head_dim): each row handed to encode, before any transform, isolated ones
//!   included
//! - on_score(score_coordinate, logit): each visible logit, after softmax_scale and soft-cap
//! A tracer is a small reference to the caller's memory. Host calls are made in a fixed order by one thread.
template <class T>
concept tracer = traces_elements<T> || traces_rows<T> || traces_scores<T> || requires {
  typename T::is_null_tracer;
};

//! The default: sees nothing, compiles to nothing.
struct null_tracer {
  using is_null_tracer = void;
};

}  // namespace kvcrumb::inline v0
