// SPDX-License-Identifier: Apache-2.0
//! @file The parts of a kv_cache: aligned bytes, full-precision rows, isolated rows.
#pragma once

#include <algorithm>
#include <new>
#include <span>
#include <type_traits>
#include <vector>

#include "kvcrumb/cache/config.hpp"
#include "kvcrumb/cache/row_values.hpp"
#include "kvcrumb/outlier/admission.hpp"
#include "kvcrumb/view/cache_view.hpp"

namespace kvcrumb::inline v0::detail {

//! Allocator of page-aligned memory, so that every blob alignment holds.
template <class T>
struct aligned_allocator {
  using value_type = T;
  aligned_allocator() = default;
  template <class U>
  aligned_allocator(aligned_allocator<U> const&) noexcept {}
  T* allocate(std::size_t n) {
    return static_cast<T*>(::operator new (n * sizeof(T), std::align_val_t{max_blob_alignment}));
  }
  void deallocate(T* p, std::size_t) noexcept { ::operator delete (p, std::align_val_t{max_blob_alignment}); }
  friend bool operator==(aligned_allocator const&, aligned_allocator const&) noexcept { return true; }
};

using byte_buffer = std::vector<std::byte, aligned_allocator<std::byte>>;

//! Rounds rows by convert(), one by one.
struct plain_rounding {
  template <row_element From, storage_float Row>
  void round(rows_view<From> const& from, int heads, std::int64_t count, int head_dim,
             rows_view<Row> const& to) const noexcept {
    round_rows(from, heads, count, head_dim, to);
  }
};

//! Full-precision rows [head][capacity][head_dim], keys and values; grows by doubling.
template <storage_float Row>
struct row_store {
  int heads = 0;
  int head_dim = 0;
  std::int64_t capacity = 0;
  std::int64_t count = 0;
  std::vector<Row> keys, values;

  void reset(int kv_heads, int width) {
    *this = row_store{};
    heads = kv_heads;
    head_dim = width;
  }
  Row* key(int head, std::int64_t i) noexcept { return keys.data() + (head * capacity + i) * head_dim; }
  Row* value(int head, std::int64_t i) noexcept { return values.data() + (head * capacity + i) * head_dim; }
  Row const* key(int head, std::int64_t i) const noexcept {
    return keys.data() + (head * capacity + i) * head_dim;
  }
  Row const* value(int head, std::int64_t i) const noexcept {
    return values.data() + (head * capacity + i) * head_dim;
  }

  void reserve(std::int64_t rows) {
    if (rows <= capacity) return;
    row_store larger;
    larger.reset(heads, head_dim);
    larger.capacity = rows > 2 * capacity ? rows : 2 * capacity;
    larger.keys.resize(static_cast<std::size_t>(larger.capacity * heads * head_dim));
    larger.values.resize(larger.keys.size());
    larger.count = count;
    for (int h = 0; h < heads; ++h) {
      std::copy_n(key(h, 0), count * head_dim, larger.key(h, 0));
      std::copy_n(value(h, 0), count * head_dim, larger.value(h, 0));
    }
    *this = static_cast<row_store&&>(larger);
  }
  //! Appends n tokens of strided input rows, rounded to Row by `with`.
  template <class K, class V, class With = plain_rounding>
  void push(rows_view<K> const& k, rows_view<V> const& v, std::int64_t n, With&& with = With{}) {
    reserve(count + n);
    count += n;
    put(count - n, k, v, n, with);
  }
  //! Overwrites rows [at, at + n).
  template <class K, class V, class With = plain_rounding>
  void put(std::int64_t at, rows_view<K> const& k, rows_view<V> const& v, std::int64_t n,
           With&& with = With{}) {
    std::int64_t const stride = capacity * head_dim;
    with.round(k, heads, n, head_dim, rows_view<Row>{key(0, at), stride, head_dim});
    with.round(v, heads, n, head_dim, rows_view<Row>{value(0, at), stride, head_dim});
  }
  void drop_front(std::int64_t n) noexcept {
    for (int h = 0; h < heads; ++h) {
      std::copy_n(key(h, n), (count - n) * head_dim, key(h, 0));
      std::copy_n(value(h, n), (count - n) * head_dim, value(h, 0));
    }
    count -= n;
  }
  void truncate(std::int64_t n) noexcept { count = n < count ? n : count; }
  void read(int head, std::int64_t i, float* k, float* v) const noexcept {
    for (int d = 0; d < head_dim; ++d) {
      k[d] = to_float(key(head, i)[d]);
      v[d] = to_float(value(head, i)[d]);
    }
  }
  exact_rows<Row> view(std::int64_t first) const noexcept {
    std::int64_t const stride = capacity * head_dim;
    return {{keys.data(), stride, head_dim}, {values.data(), stride, head_dim}, first, count};
  }
  std::int64_t bytes() const noexcept {
    return 2 * heads * count * head_dim * static_cast<std::int64_t>(sizeof(Row));
  }
  std::int64_t reserved() const noexcept {
    return static_cast<std::int64_t>((keys.capacity() + values.capacity()) * sizeof(Row));
  }
};

//! Isolated rows [head][capacity] with score and position; each kv head has its own count.
template <storage_float Row>
struct isolated_store {
  int heads = 0;
  int capacity = 0;
  int head_dim = 0;
  std::vector<Row> keys, values;
  std::vector<scored_token> scored;     //!< [head][capacity]
  std::vector<std::int64_t> positions;  //!< [head][capacity], what views point to
  std::vector<std::int32_t> counts;     //!< [head]

  void reset(int kv_heads, int slots, int width) {
    heads = kv_heads;
    capacity = slots;
    head_dim = width;
    std::size_t const entries = static_cast<std::size_t>(kv_heads) * static_cast<std::size_t>(slots);
    keys.assign(entries * static_cast<std::size_t>(width), Row{});
    values.assign(keys.size(), Row{});
    scored.assign(entries, {});
    positions.assign(entries, 0);
    counts.assign(static_cast<std::size_t>(kv_heads), 0);
  }
  std::size_t index(int head, int i) const noexcept {
    return static_cast<std::size_t>(head) * static_cast<std::size_t>(capacity) + static_cast<std::size_t>(i);
  }
  Row* key(std::size_t at) noexcept { return keys.data() + at * static_cast<std::size_t>(head_dim); }
  Row* value(std::size_t at) noexcept { return values.data() + at * static_cast<std::size_t>(head_dim); }
  std::span<scored_token const> tokens(int head) const noexcept {
    if (capacity == 0 || counts.empty()) return {};
    return {scored.data() + index(head, 0), static_cast<std::size_t>(counts[static_cast<std::size_t>(head)])};
  }

  void put(int head, scored_token token, Row const* k, Row const* v) {
    std::int32_t& n = counts[static_cast<std::size_t>(head)];
    KVCRUMB_ASSERT(n < capacity);
    std::size_t const at = index(head, n);
    for (int d = 0; d < head_dim; ++d) {
      key(at)[d] = k[d];
      value(at)[d] = v[d];
    }
    scored[at] = token;
    positions[at] = token.position;
    ++n;
  }
  //! Removes entry i, keeping the order of the others.
  void remove(int head, int i) {
    std::int32_t& n = counts[static_cast<std::size_t>(head)];
    for (int j = i; j + 1 < n; ++j) {
      std::size_t const to = index(head, j), from = index(head, j + 1);
      for (int d = 0; d < head_dim; ++d) {
        key(to)[d] = key(from)[d];
        value(to)[d] = value(from)[d];
      }
      scored[to] = scored[from];
      positions[to] = positions[from];
    }
    --n;
  }
  //! Takes over entry i of another store.
  void move_from(isolated_store& other, int head, int i) {
    std::size_t const at = other.index(head, i);
    put(head, other.scored[at], other.key(at), other.value(at));
    other.remove(head, i);
  }
  //! Forgets entries at or beyond a position.
  void drop_from(std::int64_t position) {
    for (int head = 0; head < heads; ++head) {
      for (int i = counts[static_cast<std::size_t>(head)] - 1; i >= 0; --i) {
        if (positions[index(head, i)] >= position) remove(head, i);
      }
    }
  }
  //! Entry of a position in a head; -1 if there is none.
  int find(int head, std::int64_t position) const noexcept {
    std::span<scored_token const> const all = tokens(head);
    for (std::size_t i = 0; i < all.size(); ++i) {
      if (all[i].position == position) return static_cast<int>(i);
    }
    return -1;
  }
  bool read(int head, std::int64_t position, float* k, float* v) const noexcept {
    int const i = find(head, position);
    if (i < 0) return false;
    std::size_t const at = index(head, i) * static_cast<std::size_t>(head_dim);
    for (std::size_t d = 0; d < static_cast<std::size_t>(head_dim); ++d) {
      k[d] = to_float(keys[at + d]);
      v[d] = to_float(values[at + d]);
    }
    return true;
  }
  isolated_rows<Row> view() const noexcept {
    std::int64_t const stride = static_cast<std::int64_t>(capacity) * head_dim;
    return {{keys.data(), stride, head_dim},
            {values.data(), stride, head_dim},
            positions.data(),
            capacity,
            counts.data()};
  }
  //! Rows, positions and scores of the entries in use, and the counts.
  std::int64_t bytes() const noexcept {
    if (capacity == 0) return 0;
    std::int64_t n = 0;
    for (std::int32_t const c : counts)
      n += c;
    return n * (2 * head_dim * static_cast<std::int64_t>(sizeof(Row)) + 8 + 4) + 4 * heads;
  }
  std::int64_t reserved() const noexcept {
    return static_cast<std::int64_t>((keys.capacity() + values.capacity()) * sizeof(Row) +
                                     scored.capacity() * sizeof(scored_token) + positions.capacity() * 8 +
                                     counts.capacity() * 4);
  }
};

}  // namespace kvcrumb::inline v0::detail
