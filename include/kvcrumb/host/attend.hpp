// SPDX-License-Identifier: Apache-2.0
//! @file host::attend: decode attention on the packed bytes with the vector instructions of the processor.
#pragma once

#include <span>

#include "kvcrumb/attend.hpp"
#include "kvcrumb/host/execution.hpp"
#include "kvcrumb/host/targets.hpp"

#if !defined(__CUDACC__)  // see targets.hpp

namespace kvcrumb::inline v0::host {

namespace detail {

//! One call: the plans of both sides and the caller's memory in pieces.
template <class Scheme, storage_float Row>
struct attend_call {
  cache_view<Scheme, Row> const& view;
  int rows;  //!< query rows of a kv head
  section_side keys{}, values{};
  head_memory memory{};
  float* row = nullptr;  //!< [head_dim + 1]

  //! Cuts `work` into pieces; with null work only counts. Returns the bytes that are needed.
  std::int64_t prepare(std::byte* work) noexcept {
    describe(view.scheme.key, side::key, keys);
    describe(view.scheme.value, side::value, values);
    memory_pieces pieces{work};
    take(pieces, keys);
    take(pieces, values);
    take_shared(pieces);
    take_operands(pieces, keys, memory.keys[0]);
    for (int h = 0; h < most_vector_rows; ++h)
      memory.keys[1].operands[h] = memory.keys[0].operands[h];
    memory.keys[1].matrix = memory.keys[0].matrix;
    for (product_memory& m : memory.keys)
      take_results(pieces, keys, m);
    take_operands(pieces, values, memory.values);
    take_results(pieces, values, memory.values);
    for (int h = 0; h < together(); ++h)
      memory.scores[h] = pieces.take<float>(view.shape.tile_tokens);
    take_scratch(pieces);
    memory.seen = pieces.take<std::int32_t>(view.shape.tile_tokens);
    row = pieces.take<float>(view.shape.head_dim + 1);
    memory.rows = pieces.take<query_row>(rows);
    for (int i = 0; i < rows; ++i) {
      query_row one;
      for (float** part : {&one.query, &one.prepared, &one.tile_output, &one.exact_output})
        *part = pieces.take<float>(view.shape.head_dim);
      one.tiles = pieces.take<row_state>(1);
      one.exact = pieces.take<row_state>(1);
      if (work != nullptr) memory.rows[i] = one;
    }
    return pieces.used();
  }

 private:
  template <class Side>
  void describe(Side const& scheme, side which, section_side& out) const noexcept {
    out.plan = section_plan::of(Side::spec(which, view.shape));
    out.sets = operand_sets::of_plan(out.plan);
    out.levels = level_table::of(scheme.codec);
    using facts = codec_facts<typename Side::codec_type>;
    out.mean_unit = facts::has_levels ? out.levels.mean() : 0.5f * static_cast<float>((1 << Side::bits) - 1);
    out.multiple = facts::has_levels ? out.levels.base : facts::multiple;
  }
  static void take(memory_pieces& pieces, section_side& s) noexcept {
    s.widened = s.plan.line_bytes != s.plan.code_bytes ? pieces.take<std::byte>(s.plan.line_bytes) : nullptr;
  }
  int together() const noexcept { return rows < most_rows_together ? rows : most_rows_together; }
  void take_operands(memory_pieces& pieces, section_side const& s, product_memory& m) const noexcept {
    for (int h = 0; h < rows && h < most_vector_rows; ++h)
      m.operands[h] = pieces.take<std::byte>(std::int64_t{256} * s.sets.count * s.plan.k_units);
    if (rows < 2) return;
    m.matrix = pieces.take<std::byte>(std::int64_t{s.sets.distinct_count} * matrix_depth(s.plan) *
                                      matrix_batch::block_bytes);
  }
  void take_results(memory_pieces& pieces, section_side const& s, product_memory& m) const noexcept {
    for (int h = 0; h < together(); ++h) {
      m.sums[h] = pieces.take<std::int32_t>(s.plan.rows);
      m.scales[h] = pieces.take<float>(s.plan.rows / 8);
      m.constants[h] = pieces.take<float>(s.plan.rows / 8);
    }
  }
  template <class Count>
  std::int64_t most(Count count) const noexcept {
    std::int64_t const a = count(keys), b = count(values);
    return a > b ? a : b;
  }
  void take_shared(memory_pieces& pieces) noexcept {
    auto const columns = [](section_side const& s) { return std::int64_t{padded_columns(s.plan)}; };
    auto const terms = [](section_side const& s) {
      return static_cast<std::int64_t>(s.plan.row_groups()) * padded_columns(s.plan);
    };
    prepare_memory& m = memory.shared;
    for (int h = 0; h < together(); ++h) {
      m.folded[h] = pieces.take<float>(most(columns));
      m.constant[h] = pieces.take<float>(16);
      m.terms[h] = pieces.take<std::int8_t>(2 * most(terms));
    }
    m.exact = pieces.take<float>(most(terms));
  }
  void take_scratch(memory_pieces& pieces) noexcept {
    if (rows < 2) return;
    auto const blocks = [](section_side const& s) { return std::int64_t{matrix_scratch::blocks(s)}; };
    auto const products = [](section_side const& s) { return std::int64_t{matrix_scratch::products_of(s)}; };
    memory.scratch.products = static_cast<int>(most(products));
    memory.scratch.b = pieces.take<std::byte>(most(blocks) * matrix_batch::block_bytes);
    memory.scratch.c = pieces.take<std::int32_t>(2 * most(products) * matrix_batch::sums);
  }
};

//! Runs the kernel of an instruction set over the parts of one kv head.
template <class Scheme, storage_float Row>
void run_pass(instruction_set isa, attend_call<Scheme, Row> const& c, attention_options const& options,
              int queries, int head) noexcept {
  switch (isa) {
#if defined(__x86_64__)
    case instruction_set::amx_int8:
    case instruction_set::avx512_vnni:
      target_avx512_vnni::head_pass<Scheme, Row>{c.view, options, c.memory, c.keys, c.values, queries, c.rows}
          .run(head);
      return;
    case instruction_set::avx2:
      target_avx2::head_pass<Scheme, Row>{c.view, options, c.memory, c.keys, c.values, queries, c.rows}.run(
          head);
      return;
#elif defined(__aarch64__)
    case instruction_set::neon_dotprod:
      target_neon_dotprod::head_pass<Scheme, Row>{c.view,   options, c.memory, c.keys,
                                                  c.values, queries, c.rows}
          .run(head);
      return;
#endif
    default:
      target_portable::head_pass<Scheme, Row>{c.view, options, c.memory, c.keys, c.values, queries, c.rows}
          .run(head);
  }
}

//! Attention of all query rows of one kv head.
template <class Scheme, storage_float Row, row_element Q>
void attend_head(attend_call<Scheme, Row>& call, rows_view<Q> q, int queries, int head, rows_view<float> o,
                 float* lse, attention_options const& options, execution const& how) noexcept {
  cache_view<Scheme, Row> const& view = call.view;
  int const width = view.shape.head_dim, ratio = call.rows / queries;
  float const scale =
      (options.softmax_scale != 0.0f ? options.softmax_scale : 1.0f / ::sqrtf(static_cast<float>(width))) *
      log2_e;
  for (int i = 0; i < call.rows; ++i) {
    query_row& r = call.memory.rows[i];
    Q* const source = q.row(static_cast<std::int64_t>(head) * ratio + i / queries, i % queries);
    for (int d = 0; d < width; ++d) {
      r.query[d] = to_float(source[d]);
      r.tile_output[d] = r.exact_output[d] = 0.0f;
    }
    *r.tiles = *r.exact = row_state{};
    view.scheme.key.prepare_query(head, width, r.query, call.row);
    for (int d = 0; d < width; ++d) {
      r.prepared[operand_place(d)] = call.row[d] * scale;
      r.query[d] *= scale;
    }
    r.constant = call.row[width] * scale;
  }
  call.keys.exact = call.values.exact = how.arithmetic == precision::binary32;
  matrix_unit unit = matrix_unit::none;
  if (call.keys.plan.bits > 1 && call.values.plan.bits > 1) {  // bits take longer to unpack than it saves
    if (how.isa == instruction_set::amx_int8) unit = matrix_unit::amx;
    if (how.emulate_amx) unit = matrix_unit::emulated;
  }
  call.keys.unit = call.values.unit = unit;
  run_pass(how.isa, call, options, queries, head);
  for (int i = 0; i < call.rows; ++i) {
    query_row& r = call.memory.rows[i];
    std::int64_t const query_head = static_cast<std::int64_t>(head) * ratio + i / queries;
    float* const out = call.row;
    for (int d = 0; d < width; ++d)
      out[d] = r.tile_output[operand_place(d)];
    softmax_state tiles{r.tiles->max * ln_2, r.tiles->sum};
    softmax_state const exact{r.exact->max * ln_2, r.exact->sum};
    if (!tiles.empty()) view.scheme.value.finish(head, width, out, tiles.sum);
    merge(tiles, out, exact, r.exact_output, width);
    if (options.sink_logits != nullptr && options.part.exact_rows) {
      float const sink = options.sink_logits[query_head];
      if (sink > negative_infinity) {
        float const factor = tiles.raise(sink);
        for (int d = 0; d < width; ++d)
          out[d] *= factor;
        tiles.sum += ::expf(sink - tiles.max);
      }
    }
    float* const to = o.row(query_head, i % queries);
    for (int d = 0; d < width; ++d)
      to[d] = tiles.empty() ? 0.0f : out[d] / tiles.sum;
    if (lse != nullptr) lse[query_head * queries + i % queries] = tiles.log_sum_exp();
  }
}

}  // namespace detail

//! Bytes of working memory that host::attend needs; they must begin on a multiple of 64.
template <class Scheme, storage_float Row>
std::int64_t attend_workspace_bytes(cache_view<Scheme, Row> const& view, int query_heads,
                                    int queries) noexcept {
  if constexpr (has_kernel<Scheme>) {
    int const rows = view.kv_heads > 0 ? query_heads / view.kv_heads * queries : 0;
    return detail::attend_call<Scheme, Row>{view, rows}.prepare(nullptr);
  } else {
    return attend_workspace(view, query_heads, queries) * static_cast<std::int64_t>(sizeof(float));
  }
}

//! kvcrumb::attend with the vector instructions of `how`: the same arguments, masks, parts and results, up to
//! the rounding of queries and weights that precision names (docs/host.md has measured errors). It has no
//! tracer.
//!
//!   q, o, lse  as kvcrumb::attend
//!   work       attend_workspace_bytes(view, query_heads, queries) bytes on a multiple of 64
//!
//! Errors: those of kvcrumb::attend; unsupported (see host::supports); misaligned or buffer_too_small for
//! `work`. Nothing is written then. No allocation. One thread; options.part splits the work
//! (host/work_split.hpp). Cost: reads every byte of the visible tiles once for each pair of query rows of a
//! kv head; later pairs find them in the first-level cache.
template <class Scheme, storage_float Row, row_element Q>
status attend(cache_view<Scheme, Row> const& view, rows_view<Q> q, int query_heads, int queries,
              rows_view<float> o, float* lse, attention_options const& options, std::span<std::byte> work,
              execution const& how) noexcept {
  if (status const s = check_attention(view, q, query_heads, queries, o, options); s != status::ok) return s;
  if (status const s = supports(view.scheme, view.shape, view.kv_heads, how); s != status::ok) return s;
  if (reinterpret_cast<std::uintptr_t>(work.data()) % 64 != 0) return status::misaligned;
  if (static_cast<std::int64_t>(work.size()) < attend_workspace_bytes(view, query_heads, queries)) {
    return status::buffer_too_small;
  }
  if constexpr (has_kernel<Scheme>) {
    if (queries == 0) return status::ok;
    detail::attend_call<Scheme, Row> call{view, query_heads / view.kv_heads * queries};
    call.prepare(work.data());
    int const end = options.part.end_head < view.kv_heads ? options.part.end_head : view.kv_heads;
    for (int head = options.part.first_head; head < end; ++head)
      detail::attend_head(call, q, queries, head, o, lse, options, how);
    return status::ok;
  } else {
    return kvcrumb::attend(
        view, q, query_heads, queries, o, lse, options,
        std::span<float>(reinterpret_cast<float*>(work.data()), work.size() / sizeof(float)));
  }
}

}  // namespace kvcrumb::inline v0::host

#endif
