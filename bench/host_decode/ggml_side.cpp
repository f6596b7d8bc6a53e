// SPDX-License-Identifier: Apache-2.0
//! @file Decode attention by ggml, through its public interface: one graph for each copy of the cache.

#include "host_decode/ggml_side.hpp"

#include <ggml-backend.h>
#include <ggml-cpu.h>
#include <ggml.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace kvcrumb_bench {
namespace {

constexpr std::size_t cache_line = 64, huge_page = std::size_t{2} << 20;
constexpr std::size_t graph_nodes = 16;  // the attention and two views; ggml counts leafs separately

std::size_t round_up(std::size_t bytes, std::size_t unit) { return (bytes + unit - 1) / unit * unit; }

ggml_type type_of(ggml_kv type) {
  switch (type) {
    case ggml_kv::f16: return GGML_TYPE_F16;
    case ggml_kv::bf16: return GGML_TYPE_BF16;
    case ggml_kv::q8_0: return GGML_TYPE_Q8_0;
    case ggml_kv::q4_0: return GGML_TYPE_Q4_0;
  }
  return GGML_TYPE_F16;
}

struct context_deleter {
  void operator()(ggml_context* c) const { ggml_free(c); }
};
struct pool_deleter {
  void operator()(ggml_threadpool* p) const { ggml_threadpool_free(p); }
};
struct memory_deleter {
  void operator()(void* p) const { std::free(p); }
};

//! A graph and what ggml needs to compute it.
struct planned_graph {
  ggml_cgraph* graph = nullptr;
  ggml_cplan plan{};
};

void compute(planned_graph& g) {
  if (ggml_graph_compute(g.graph, &g.plan) == GGML_STATUS_SUCCESS) return;
  std::fprintf(stderr, "ggml_graph_compute failed\n");
  std::exit(EXIT_FAILURE);
}

}  // namespace

char const* to_string(ggml_kv type) { return ggml_type_name(type_of(type)); }

char const* to_string(ggml_order order) {
  return order == ggml_order::token_major ? "token-major" : "contiguous";
}

std::string ggml_description() {
  std::string text = std::string("ggml ") + ggml_version() + " (" + ggml_commit() + ")";
  ggml_backend_reg_t const cpu = ggml_backend_cpu_reg();
  auto const features = reinterpret_cast<ggml_backend_get_features_t>(
      ggml_backend_reg_get_proc_address(cpu, "ggml_backend_get_features"));
  bool openmp = false;
  if (features != nullptr) {
    for (ggml_backend_feature const* f = features(cpu); f->name != nullptr; ++f) {
      if (std::strcmp(f->name, "OPENMP") == 0) {
        openmp = true;
      } else {
        text += std::string(" ") + f->name;
      }
    }
  }
  return text + (openmp ? ", OpenMP threads (cannot rest)" : ", ggml's thread pool, polling level 50");
}

struct ggml_attention::state {
  ggml_type type = GGML_TYPE_F16;
  ggml_order order = ggml_order::contiguous;
  std::int64_t query_heads = 0, kv_heads = 0, tokens = 0;
  std::size_t row_bytes = 0, side_bytes = 0;  // side: the keys or the values of one copy

  std::unique_ptr<void, memory_deleter> memory;  // copies of keys and values, then queries and output
  std::unique_ptr<ggml_context, context_deleter> context;
  std::unique_ptr<ggml_threadpool, pool_deleter> pool;
  std::size_t work_bytes = 0;
  std::unique_ptr<void, memory_deleter> work;
  std::vector<planned_graph> steps;  // one for each copy
  planned_graph roll_call;           // a graph of a single addition: all threads must come
  float* queries = nullptr;
  float* output = nullptr;
  bool awake = false;

  std::byte* side(std::size_t copy, bool values) const {
    return static_cast<std::byte*>(memory.get()) +
           (2 * copy + (values ? 1 : 0)) * round_up(side_bytes, cache_line);
  }
  std::byte* row(std::size_t copy, bool values, std::int64_t head, std::int64_t token) const {
    std::int64_t const index =
        order == ggml_order::contiguous ? head * tokens + token : token * kv_heads + head;
    return side(copy, values) + static_cast<std::size_t>(index) * row_bytes;
  }
  std::size_t index_of(int copy) const { return static_cast<std::size_t>(copy) % steps.size(); }
  void store(std::size_t copy, std::span<float const> keys, std::span<float const> values) const {
    for (bool const side : {false, true}) {
      float const* source = side ? values.data() : keys.data();
      for (std::int64_t h = 0; h < kv_heads; ++h) {
        for (std::int64_t t = 0; t < tokens; ++t, source += head_dim)
          ggml_quantize_chunk(type, source, row(copy, side, h, t), 0, 1, head_dim, nullptr);
      }
    }
  }
  std::size_t values_of_side() const { return static_cast<std::size_t>(kv_heads * tokens * head_dim); }

  //! Keys or values as the attention sees them: [channel][token][kv head] in ggml's order, innermost first.
  ggml_tensor* side_tensor(std::size_t copy, bool values) const {
    ggml_context* const c = context.get();
    bool const by_head = order == ggml_order::contiguous;
    ggml_tensor* const t =
        ggml_new_tensor_3d(c, type, head_dim, by_head ? tokens : kv_heads, by_head ? kv_heads : tokens);
    t->data = side(copy, values);
    return by_head ? t : ggml_permute(c, t, 0, 2, 1, 3);
  }

  planned_graph plan_of(ggml_tensor* result, int threads) {
    planned_graph g;
    g.graph = ggml_new_graph_custom(context.get(), graph_nodes, false);
    ggml_build_forward_expand(g.graph, result);
    g.plan = ggml_graph_plan(g.graph, threads, pool.get());
    work_bytes = std::max(work_bytes, round_up(g.plan.work_size, cache_line));
    return g;
  }
};

ggml_attention::ggml_attention() : s_(std::make_unique<state>()) {}
ggml_attention::~ggml_attention() = default;

std::unique_ptr<ggml_attention> ggml_attention::create(ggml_kv type, ggml_order order, int query_heads,
                                                       int kv_heads, std::int64_t tokens, int threads,
                                                       std::int64_t min_pool_bytes, bool huge_pages) {
  if (kv_heads <= 0 || query_heads <= 0 || query_heads % kv_heads != 0 || tokens <= 0) return nullptr;
  if (threads <= 0 || threads > GGML_MAX_N_THREADS) return nullptr;
  ggml_cpu_init();  // makes the tables that conversions look up
  std::unique_ptr<ggml_attention> made(new ggml_attention);
  state& s = *made->s_;
  s.type = type_of(type);
  s.order = order;
  s.query_heads = query_heads;
  s.kv_heads = kv_heads;
  s.tokens = tokens;
  s.row_bytes = ggml_row_size(s.type, head_dim);
  s.side_bytes = static_cast<std::size_t>(kv_heads * tokens) * s.row_bytes;

  auto const step_bytes = static_cast<std::int64_t>(2 * s.side_bytes);
  auto const copies =
      static_cast<std::size_t>(std::max<std::int64_t>(1, (min_pool_bytes + step_bytes - 1) / step_bytes));
  std::size_t const row_floats = static_cast<std::size_t>(query_heads) * head_dim;
  std::size_t const pool_bytes = 2 * copies * round_up(s.side_bytes, cache_line);
  std::size_t const all_bytes = round_up(pool_bytes + 2 * row_floats * sizeof(float), huge_page);
  s.memory.reset(std::aligned_alloc(huge_page, all_bytes));
  if (s.memory == nullptr) return nullptr;
#if defined(__linux__)
  if (huge_pages) madvise(s.memory.get(), all_bytes, MADV_HUGEPAGE);
#else
  static_cast<void>(huge_pages);
#endif
  std::memset(s.memory.get(), 0, all_bytes);
  s.queries = reinterpret_cast<float*>(static_cast<std::byte*>(s.memory.get()) + pool_bytes);
  s.output = s.queries + row_floats;

  std::size_t const graph_bytes = ggml_graph_overhead_custom(graph_nodes, false);
  s.context.reset(ggml_init({.mem_size = (copies + 1) * (6 * ggml_tensor_overhead() + graph_bytes),
                             .mem_buffer = nullptr,
                             .no_alloc = true}));
  if (s.context == nullptr) return nullptr;
  ggml_threadpool_params parameters = ggml_threadpool_params_default(threads);
  parameters.paused = true;
  s.pool.reset(ggml_threadpool_new(&parameters));
  if (s.pool == nullptr) return nullptr;

  ggml_context* const c = s.context.get();
  ggml_tensor* const q = ggml_new_tensor_3d(c, GGML_TYPE_F32, head_dim, 1, query_heads);
  q->data = s.queries;
  for (std::size_t i = 0; i < copies; ++i) {
    ggml_tensor* const keys = s.side_tensor(i, false);
    ggml_tensor* const values = s.side_tensor(i, true);
    ggml_tensor* const result = ggml_flash_attn_ext(
        c, q, keys, values, nullptr, 1.0f / std::sqrt(static_cast<float>(head_dim)), 0.0f, 0.0f);
    result->data = s.output;
    s.steps.push_back(s.plan_of(result, threads));
  }
  ggml_tensor* const sum = ggml_add(c, q, q);
  sum->data = s.output;
  s.roll_call = s.plan_of(sum, threads);
  s.work.reset(std::aligned_alloc(cache_line, s.work_bytes));
  if (s.work == nullptr) return nullptr;
  for (planned_graph& g : s.steps)
    g.plan.work_data = static_cast<std::uint8_t*>(s.work.get());
  s.roll_call.plan.work_data = static_cast<std::uint8_t*>(s.work.get());
  return made;
}

bool ggml_attention::set_inputs(std::span<float const> keys, std::span<float const> values,
                                std::span<float const> queries) {
  state& s = *s_;
  if (keys.size() != s.values_of_side() || values.size() != s.values_of_side()) return false;
  if (queries.size() != static_cast<std::size_t>(s.query_heads) * head_dim) return false;
  std::copy(queries.begin(), queries.end(), s.queries);
  s.store(0, keys, values);
  for (std::size_t i = 1; i < s.steps.size(); ++i) {
    for (bool const side : {false, true})
      std::memcpy(s.side(i, side), s.side(0, side), s.side_bytes);
  }
  return true;
}

bool ggml_attention::set_rows(int copy, std::span<float const> keys, std::span<float const> values) {
  state& s = *s_;
  if (keys.size() != s.values_of_side() || values.size() != s.values_of_side()) return false;
  s.store(s.index_of(copy), keys, values);
  return true;
}

void ggml_attention::wake() {
  compute(s_->roll_call);
  s_->awake = true;
}

void ggml_attention::rest() {
  ggml_threadpool_pause(s_->pool.get());
  s_->awake = false;
}

void ggml_attention::run(int copy) {
  compute(s_->steps[s_->index_of(copy)]);
  if (!s_->awake) ggml_threadpool_pause(s_->pool.get());
}

int ggml_attention::copies() const { return static_cast<int>(s_->steps.size()); }

std::span<std::byte const> ggml_attention::pool() const {
  auto const* const first = static_cast<std::byte const*>(s_->memory.get());
  return {first, static_cast<std::size_t>(reinterpret_cast<std::byte const*>(s_->queries) - first)};
}

std::int64_t ggml_attention::bytes() const { return static_cast<std::int64_t>(2 * s_->side_bytes); }
float const* ggml_attention::output() const { return s_->output; }
float const* ggml_attention::queries() const { return s_->queries; }

void ggml_attention::stored_rows(int copy, std::span<float> keys, std::span<float> values) const {
  state const& s = *s_;
  auto const decode = ggml_get_type_traits(s.type)->to_float;
  for (bool const side : {false, true}) {
    float* target = side ? values.data() : keys.data();
    for (std::int64_t h = 0; h < s.kv_heads; ++h) {
      for (std::int64_t t = 0; t < s.tokens; ++t, target += head_dim)
        decode(s.row(s.index_of(copy), side, h, t), target, head_dim);
    }
  }
}

void ggml_attention::rounded_queries(std::span<float> queries) const {
  state const& s = *s_;
  ggml_type const type = ggml_get_type_traits_cpu(s.type)->vec_dot_type;
  std::vector<std::byte> row(ggml_row_size(type, head_dim));
  for (std::int64_t h = 0; h < s.query_heads; ++h) {
    ggml_get_type_traits_cpu(type)->from_float(s.queries + h * head_dim, row.data(), head_dim);
    ggml_get_type_traits(type)->to_float(row.data(), queries.data() + h * head_dim, head_dim);
  }
}

}  // namespace kvcrumb_bench
