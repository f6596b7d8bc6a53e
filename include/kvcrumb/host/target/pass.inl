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

  //! Query rows of a job.
  int together() const noexcept {
    if (keys.exact) return 1;
    return has_matrix && keys.unit != matrix_unit::none ? most_rows_together : most_vector_rows;
  }
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
    if constexpr (has_matrix) {
      int const most = rows < together() ? rows : together();
      bool const amx = keys.unit == matrix_unit::amx && most > 1;  // one row is multiplied by vectors
      if (amx) configure_amx(2 * most);
      visit_tiles(head);
      if (amx) release_amx();
    } else {
      visit_tiles(head);
    }
    if (!options.part.exact_rows) return;
    visit_rows(head, view.sinks.keys, view.sinks.values, view.sinks.count, nullptr, view.sinks.first);
    visit_isolated(head, view.pool);
    visit_isolated(head, view.aux);
    visit_rows(head, view.tail.keys, view.tail.values, view.tail.count, nullptr, view.tail.first);
  }

  //! Some query rows and a tile.
  struct tile_job {
    std::int64_t tile = 0, first = 0;  //!< first: token
    int row = 0, count = 0;            //!< query rows; count 0: there is no job
    section_product<key_format> keys;
    section_product<value_format> values;
    std::byte const *mask = nullptr, *next_keys = nullptr, *next_values = nullptr;
  };
  //! What turns the scores of `job` into the operand of its product with values.
  struct weight_context {
    head_pass const& pass;
    int head;
    tile_job const *job = nullptr, *before = nullptr;  //!< before: its product with values is to be finished
    bool any[most_rows_together] = {};                 //!< whether a query row of the job sees a key
  };

  std::int64_t end_tile() const noexcept {
    return options.part.end_tile < view.tiles() ? options.part.end_tile : view.tiles();
  }
  //! The first job from `tile` and `row` on whose tile any query sees.
  void start(tile_job& j, int head, std::int64_t tile, int row, int slot) const noexcept {
    std::int64_t const end = end_tile();
    for (; tile < end; ++tile, row = 0) {
      j.first = view.tile_first + tile * tokens();
      if (!out_of_sight(j.first, j.first + tokens())) break;
    }
    j.count = tile >= end ? 0 : rows - row < together() ? rows - row : together();
    if (j.count == 0) return;
    j.mask = view.masks.section(head, tile);
    ops::prefetch(j.mask);
    bool const last = tile + 1 == end;
    int const next_head = last && head + 1 < view.kv_heads ? head + 1 : head;
    std::int64_t const next = last ? options.part.first_tile : tile + 1;
    j.tile = tile;
    j.row = row;
    j.next_keys = view.keys.section(next_head, next);
    j.next_values = view.values.section(next_head, next);
    j.keys.side = &keys;
    j.keys.memory = j.values.memory = &memory.shared;
    j.keys.scratch = j.values.scratch = &memory.scratch;
    j.keys.at = &memory.keys[slot];
    j.keys.section = view.keys.section(head, tile);
    j.values.side = &values;
    j.values.at = &memory.values;
    j.values.section = view.values.section(head, tile);
    j.values.nonzero = j.values.add = true;
    j.keys.count = j.values.count = j.count;
    j.keys.one_at_a_time = j.values.one_at_a_time = !keys.whole() || !values.whole();
    j.keys.fresh = j.values.fresh = row == 0;
    for (int h = 0; h < j.count; ++h) {
      j.keys.x[h] = memory.row(row + h).prepared;
      j.keys.y[h] = memory.scores[h];
      j.values.x[h] = memory.scores[h];
      j.values.y[h] = memory.row(row + h).tile_output;
    }
  }
  void start_after(tile_job& j, tile_job const& before, int head, int slot) const noexcept {
    bool const more = before.row + before.count < rows;
    j.count = 0;
    if (before.count != 0)
      start(j, head, before.tile + (more ? 0 : 1), more ? before.row + before.count : 0, slot);
  }

  //! Attention over the tiles. The product of the next job with its keys runs before that of this job with
  //! its values; between the lines of the former this job's scores become an operand, and between the lines
  //! of the latter the queries of the job after the next one do.
  void visit_tiles(int head) const noexcept {
    tile_job jobs[3];
    tile_job *job = jobs, *next = jobs + 1, *after = jobs + 2;
    start(*job, head, options.part.first_tile, 0, 0);
    if (job->count == 0) return;
    weight_context weights{*this, head};
    background none;
    query_steps(*job).rest();
    job->keys.multiply(none, job->next_keys);
    start_after(*next, *job, head, 1);
    query_steps(*next).rest();
    for (int slot = 0; job->count != 0; slot = 1 - slot) {
      weights.job = job;
      background steps{weight_step, &weights,
                       first_value_step + section_product<value_format>::prepare_steps(values)};
      if (next->count != 0) {
        next->keys.multiply(steps, next->next_keys);
      } else {
        steps.rest();
      }
      start_after(*after, *next, head, slot);
      background queries_of_after = query_steps(*after);
      job->values.multiply(queries_of_after, job->next_values);
      weights.before = job;
      tile_job* const done = job;
      job = next;
      next = after;
      after = done;  // weights.before; it is finished before the next job starts there
    }
    weights.before->values.finish();
  }
  background query_steps(tile_job& j) const noexcept {
    if (j.count == 0) return {};
    return {query_step, &j.keys, section_product<key_format>::prepare_steps(keys)};
  }
  static void query_step(void* with, int step) {
    static_cast<section_product<key_format> const*>(with)->prepare(step);
  }
  static constexpr int first_value_step = 4;
  static void weight_step(void* with, int step) {
    weight_context& c = *static_cast<weight_context*>(with);
    switch (step) {
      case 0:
        if (c.before != nullptr) c.before->values.finish();
        return;
      case 1: return c.job->keys.finish();
      case 2: return c.pass.see(c);
      case 3: return c.pass.weigh_rows(c);
      default: return c.job->values.prepare(step - first_value_step);
    }
  }
  //! The largest scores of what the query rows of a job see.
  void see(weight_context& c) const noexcept {
    tile_job const& j = *c.job;
    bool const same_sight = in_full_sight(j.first, j.first + tokens());  // holes aside
    std::int32_t const* const same = same_sight ? holes(j.mask) : nullptr;
    for (int h = 0; h < j.count; ++h) {
      query_row const& row = memory.row(j.row + h);
      float* const y = memory.scores[h];
      if (row.constant != 0.0f) {
        for (int t = 0; t < tokens(); t += 16)
          store(y + t, load(y + t) + splat(row.constant));
      }
      std::int32_t const* const seen = same_sight ? same : sight(c.head, j.first, j.mask, j.row + h);
      float factor = 1.0f;
      c.any[h] = raise(y, tokens(), seen, options.soft_cap, *row.tiles, factor);
      if (factor != 1.0f) scale_row(row.tile_output, width(), factor);
    }
  }
  void weigh_rows(weight_context& c) const noexcept {
    for (int h = 0; h < c.job->count; ++h) {
      float* const y = memory.scores[h];
      if (c.any[h]) {
        weigh(y, tokens(), *memory.row(c.job->row + h).tiles);
      } else {
        for (int t = 0; t < tokens(); t += 16)
          store(y + t, f32x16{});
      }
    }
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
          store(seen + t, filled<i32x16>(-1));
        any = true;
      }
      for (; out != 0; out &= out - 1)
        seen[operand_place(word + std::countr_zero(out))] = 0;
    }
    return any ? seen : nullptr;
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
          scores[t] = t < n ? dot_row(row.query, k.row(head, begin + t), width()) : 0.0f;
          if (plain) continue;
          std::int64_t const key =
              t < n ? view.where(head, tokens_of == nullptr ? first + begin + t : tokens_of[begin + t]) : 0;
          memory.seen[t] = t < n && visible(key, at) ? -1 : 0;
        }
        float factor = 1.0f;
        if (!raise(scores, padded, plain ? nullptr : memory.seen, options.soft_cap, *row.exact, factor))
          continue;
        weigh(scores, padded, *row.exact);
        if (factor != 1.0f) scale_row(row.exact_output, width(), factor);
        for (int t = 0; t < n; ++t) {
          if (scores[t] != 0.0f) add_row(scores[t], v.row(head, begin + t), row.exact_output, width());
        }
      }
    }
  }
};
