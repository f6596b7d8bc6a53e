// SPDX-License-Identifier: Apache-2.0
//! @file The pass over one kv head: tiles, then exact rows, then the end of the softmax. Included once per
//! target by targets.hpp.

//! Attention of the query heads of one kv head; what attention_pass computes, with the tiles as integer
//! products. Logits are kept in units of ln 2.
template <class Scheme, storage_float Row>
struct head_pass {
  using key_format = typename scheme_facts<typename Scheme::key_type>::template format<>;
  using value_format = typename scheme_facts<typename Scheme::value_type>::template format<>;

  cache_view<Scheme, Row> const& view;
  attention_options const& options;
  head_memory const& memory;
  section_side const &keys, &values;
  int queries;
  int rows;  //!< query rows of the kv head: (query head, query token)

  int width() const noexcept { return view.shape.head_dim; }
  int tokens() const noexcept { return view.shape.tile_tokens; }

  std::int64_t query_position(int i) const noexcept {
    std::int64_t const first = options.first_query >= 0 ? options.first_query : view.length() - queries;
    return first + i % queries;
  }
  bool visible(std::int64_t key, std::int64_t query_at) const noexcept {
    return (!options.causal || key <= query_at) && (options.window == 0 || key - query_at > -options.window);
  }
  //! No query sees any of the tokens [begin, end), or every query sees all of them.
  bool out_of_sight(std::int64_t begin, std::int64_t end) const noexcept {
    if (view.where.data != nullptr) return false;
    std::int64_t const oldest = query_position(0), newest = query_position(queries - 1);
    return (options.causal && begin > newest) || (options.window > 0 && end - 1 - oldest <= -options.window);
  }
  bool in_full_sight(std::int64_t begin, std::int64_t end) const noexcept {
    if (view.where.data != nullptr) return false;
    std::int64_t const oldest = query_position(0), newest = query_position(queries - 1);
    return visible(end - 1, oldest) && visible(begin, newest);
  }

  void run(int head) const noexcept {
    std::int64_t const end = options.part.end_tile < view.tiles() ? options.part.end_tile : view.tiles();
    for (std::int64_t tile = options.part.first_tile; tile < end; ++tile) {
      bool const last = tile + 1 == end;
      visit_tile(head, tile, last && head + 1 < view.kv_heads ? head + 1 : head,
                 last ? options.part.first_tile : tile + 1);
    }
    if (!options.part.exact_rows) return;
    visit_rows(head, view.sinks.keys, view.sinks.values, view.sinks.count, nullptr, view.sinks.first);
    visit_isolated(head, view.pool);
    visit_isolated(head, view.aux);
    visit_rows(head, view.tail.keys, view.tail.values, view.tail.count, nullptr, view.tail.first);
  }

  //! scores of a row become weights; factor is what earlier sums and outputs must be multiplied with. False:
  //! no key is visible. `seen` holds -1 for visible keys, null: all are.
  KVCRUMB_TARGET_INLINE bool weigh(float* scores, int n, std::int32_t const* seen, row_state& state,
                                   float& factor) const noexcept {
    f32x16 top = splat(negative_infinity);
    for (int t = 0; t < n; t += 16) {
      f32x16 s = load(scores + t);
      if (options.soft_cap > 0.0f) s = capped(s, options.soft_cap * log2_e);
      if (seen != nullptr) s = select(load(seen + t), s, splat(negative_infinity));
      store(scores + t, s);
      top = ops::maximum(top, s);
    }
    float const most = ops::largest(top);
    if (most == negative_infinity) return false;
    factor = state.raise(most);
    f32x16 const base = splat(state.max);
    f32x16 sum{};
    for (int t = 0; t < n; t += 16) {
      f32x16 const weight =
          power_of_two(load(scores + t) - base);  // NaN of a NaN, so that it reaches the sum
      store(scores + t, weight);
      sum += weight;
    }
    state.sum += ops::sum(sum);
    return true;
  }

  void visit_tile(int head, std::int64_t tile, int next_head, std::int64_t next) const noexcept {
    std::int64_t const first = view.tile_first + tile * tokens();
    if (out_of_sight(first, first + tokens())) return;
    std::byte const* const mask = view.masks.section(head, tile);
    bool const same_sight = in_full_sight(first, first + tokens());  // holes aside
    std::int32_t const* const seen = same_sight ? holes(mask) : nullptr;
    std::byte const* key_codes = view.keys.section(head, tile);
    std::byte const* value_codes = view.values.section(head, tile);
    std::byte const* const next_keys = view.keys.section(next_head, next);
    std::byte const* const next_values = view.values.section(next_head, next);
    ops::prefetch(view.masks.section(next_head, next));
    load_parameters<key_format>(keys, key_codes, next_keys);
    load_parameters<value_format>(values, value_codes, next_values);
    if constexpr (key_format::stored_bits == 3) key_codes = widen(keys, key_codes);
    if constexpr (value_format::stored_bits == 3) value_codes = widen(values, value_codes);
    int i = 0;
    for (; !keys.exact && i + 1 < rows; i += 2)
      visit_rows_of_tile<2>(head, first, same_sight ? nullptr : mask, seen, i, key_codes, value_codes,
                            next_keys, next_values);
    for (; i < rows; ++i)
      visit_rows_of_tile<1>(head, first, same_sight ? nullptr : mask, seen, i, key_codes, value_codes,
                            next_keys, next_values);
  }

  //! Which slots are valid, -1 or 0, in operand order; null if all are.
  std::int32_t const* holes(std::byte const* mask) const noexcept {
    std::int32_t* const seen = memory.seen;
    bool any = false;
    for (int word = 0; word < tokens(); word += 32) {
      std::uint32_t valid;
      std::memcpy(&valid, mask + word / 8, sizeof valid);
      std::uint32_t out = ~valid;
      if (out == 0 && !any) continue;
      if (!any) {
        for (int t = 0; t < tokens(); t += 16)
          store(seen + t, i32x16{} - 1);
        any = true;
      }
      for (; out != 0; out &= out - 1)
        seen[operand_place(word + std::countr_zero(out))] = 0;
    }
    return any ? seen : nullptr;
  }

  template <int H>
  KVCRUMB_TARGET_INLINE void visit_rows_of_tile(int head, std::int64_t first, std::byte const* mask,
                                                std::int32_t const* same_seen, int i,
                                                std::byte const* key_codes, std::byte const* value_codes,
                                                std::byte const* next_keys,
                                                std::byte const* next_values) const noexcept {
    float const* x[H];
    float* y[H];
    for (int h = 0; h < H; ++h) {
      x[h] = memory.row(i + h).prepared;
      y[h] = memory.scores[h];
    }
    multiply_section<key_format, H>(keys, memory.shared, key_codes, x, false, false, y, next_keys);
    for (int h = 0; h < H; ++h) {
      query_row const& row = memory.row(i + h);
      if (row.constant != 0.0f) {
        for (int t = 0; t < tokens(); t += 16)
          store(y[h] + t, load(y[h] + t) + splat(row.constant));
      }
      std::int32_t const* const seen = mask == nullptr ? same_seen : sight(head, first, mask, i + h);
      float factor = 1.0f;
      if (!weigh(y[h], tokens(), seen, *row.tiles, factor)) {
        for (int t = 0; t < tokens(); t += 16)
          store(y[h] + t, f32x16{});
      }
      if (factor != 1.0f) scale_row(row.tile_output, factor);
      x[h] = y[h];
      y[h] = row.tile_output;
    }
    multiply_section<value_format, H>(values, memory.shared, value_codes, x, true, true, y, next_values);
  }

  KVCRUMB_TARGET_INLINE void scale_row(float* row, float factor) const noexcept {
    for (int d = 0; d < width(); d += 16)
      store(row + d, load(row + d) * splat(factor));
  }

  //! Which slots query row i sees, -1 or 0, in operand order.
  std::int32_t const* sight(int head, std::int64_t first, std::byte const* mask, int i) const noexcept {
    std::int64_t const at = query_position(i);
    for (int t = 0; t < tokens(); ++t) {
      bool const valid = ((std::to_integer<unsigned>(mask[t / 8]) >> (t % 8)) & 1u) != 0;
      memory.seen[operand_place(t)] = valid && visible(view.where(head, first + t), at) ? -1 : 0;
    }
    return memory.seen;
  }

  KVCRUMB_TARGET_INLINE void visit_isolated(int head, isolated_rows<Row> const& part) const noexcept {
    if (part.counts == nullptr) return;
    visit_rows(head, part.keys, part.values, part.counts[head], part.positions + head * part.stride_positions,
               0);
  }

  //! Exact rows in blocks of tile_tokens; row i is token tokens[i], or first + i when `tokens_of` is null.
  void visit_rows(int head, rows_view<Row const> k, rows_view<Row const> v, std::int64_t count,
                  std::int64_t const* tokens_of, std::int64_t first) const noexcept {
    for (std::int64_t begin = 0; begin < count; begin += tokens()) {
      int const n = static_cast<int>(count - begin < tokens() ? count - begin : tokens());
      if (tokens_of == nullptr && out_of_sight(first + begin, first + begin + n)) continue;
      bool const plain =
          tokens_of == nullptr && in_full_sight(first + begin, first + begin + n) && n % 16 == 0;
      int const padded = (n + 15) / 16 * 16;
      for (int i = 0; i < rows; ++i) {
        query_row const& row = memory.row(i);
        float* const scores = memory.scores[0];
        std::int64_t const at = query_position(i);
        for (int t = 0; t < padded; ++t) {
          scores[t] = t < n ? dot_row(row.query, k.row(head, begin + t)) : 0.0f;
          if (plain) continue;
          std::int64_t const key =
              t < n ? view.where(head, tokens_of == nullptr ? first + begin + t : tokens_of[begin + t]) : 0;
          memory.seen[t] = t < n && visible(key, at) ? -1 : 0;
        }
        float factor = 1.0f;
        if (!weigh(scores, padded, plain ? nullptr : memory.seen, *row.exact, factor)) continue;
        if (factor != 1.0f) scale_row(row.exact_output, factor);
        for (int t = 0; t < n; ++t) {
          if (scores[t] != 0.0f) add_row(scores[t], v.row(head, begin + t), row.exact_output);
        }
      }
    }
  }
  KVCRUMB_TARGET_INLINE float dot_row(float const* q, Row const* k) const noexcept {
    f32x16 a{}, b{};
    for (int d = 0; d < width(); d += 32) {
      a = ops::multiply_add(load(q + d), load(k + d), a);
      b = ops::multiply_add(load(q + d + 16), load(k + d + 16), b);
    }
    return ops::sum(a + b);
  }
  KVCRUMB_TARGET_INLINE void add_row(float weight, Row const* v, float* o) const noexcept {
    for (int d = 0; d < width(); d += 16)
      store(o + d, ops::multiply_add(load(v + d), splat(weight), load(o + d)));
  }
};
