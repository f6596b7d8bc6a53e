// SPDX-License-Identifier: Apache-2.0
//! @file Encoding prompts, and appending one token to every sequence.
//!
//! encode: bytes read (fp16 keys and values, once) and written (tiles, exact rows). append: the time of one
//! step of one layer; `idle` steps only write a row to the tail, `flush` steps encode a block for every head.
#include "cuda/device_layer.cuh"
#include "kvcrumb/device/append.cuh"
#include "kvcrumb/device/encode.cuh"

namespace {

using namespace kvcrumb_bench;

//! Rows of all sequences and kv heads, [sequence][head][token], or [sequence][token][head] if `token_major`.
kvcrumb::batch_rows<float16 const> input_rows(problem const& p, std::int64_t tokens, bool token_major) {
  std::int64_t const heads = p.kv_heads, sequence = heads * tokens * head_dim;
  float16 const* const data = filled_rows(p.sequences * sequence);
  if (token_major) return {data, sequence, head_dim, heads * head_dim};
  return {data, sequence, tokens * head_dim, head_dim};
}

//! What exact_rows_of says, without the assumption about tokens pushed out of the pool.
template <class Scheme>
exact_rows rows_after_prompt(Scheme const& scheme, int tokens) {
  exact_rows e = exact_rows_of(scheme, tokens);
  e.aux = 0;
  return e;
}

template <class Scheme>
void encode(benchmark::State& state, Scheme const& scheme, problem const& p, bool token_major) {
  using encoder = kvcrumb::device::encoder<Scheme, head_dim, tile_tokens, float16>;
  arena& memory = arena::get();
  memory.reset();
  double const input = 4.0 * head_dim * p.kv_heads * static_cast<double>(p.sequences) * p.tokens;
  exact_rows const e = rows_after_prompt(scheme, p.tokens);
  layer_copies layers;
  if (!make_layers(scheme, p, e, 0.0, layers)) return skip_too_large(state, layers.bytes);
  std::int64_t const inputs = copies_beyond_l2(input);
  if (static_cast<double>(inputs) * input + 64e6 > static_cast<double>(memory.left()))
    return skip_too_large(state, input);
  std::vector<kvcrumb::batch_rows<float16 const>> keys, values;
  for (std::int64_t i = 0; i < inputs; ++i) {
    keys.push_back(input_rows(p, p.tokens, token_major));
    values.push_back(input_rows(p, p.tokens, token_major));
  }
  std::int64_t const bytes = encoder::workspace(scheme, layers.caches.front(), p.tokens);
  auto* const workspace = memory.take<std::byte>(bytes + 16);
  auto const request = [&](std::int64_t i) {
    std::size_t const from = static_cast<std::size_t>(i % inputs);
    return kvcrumb::device::encode_request<float16>{
        layers.caches[static_cast<std::size_t>(i) % layers.caches.size()], keys[from], values[from], p.tokens,
        nullptr};
  };
  if (kvcrumb::status const s = encoder::check(scheme, request(0)); s != kvcrumb::status::ok)
    return wrong(state, std::string("refused: ") + kvcrumb::to_string(s));
  measure(state,
          {enqueue_mode::graph, input + layers.bytes,
           std::max<std::int64_t>(inputs, static_cast<std::int64_t>(layers.caches.size()))},
          [&](std::int64_t i) {
            require(encoder::encode(scheme, request(i), workspace, bytes, stream()), "encode");
          });
  state.counters["input_MB"] = 1e-6 * input;
}

//! What an append changes beside rows and tiles: `encoded` and the pools. A launch gets a fresh set of them,
//! so that each finds the same state.
class append_states {
 public:
  append_states(std::vector<kvcrumb::batch_cache>& caches, std::int64_t count, int encoded)
      : caches_{caches} {
    kvcrumb::batch_cache const& c = caches.front();
    segments_ = std::int64_t{c.sequences} * c.kv_heads;
    std::int64_t const words = c.sequences + isolated_words(c.pool) + isolated_words(c.aux);
    words_ = (words + 63) / 64 * 64;
    std::vector<std::uint32_t> one(static_cast<std::size_t>(words_), 0u);
    std::fill(one.begin(), one.begin() + c.sequences, static_cast<std::uint32_t>(encoded));
    std::size_t at = static_cast<std::size_t>(c.sequences);
    for (kvcrumb::batch_isolated const* p : {&c.pool, &c.aux}) {
      if (p->capacity == 0) continue;
      for (std::int64_t i = 0; i < segments_ * p->capacity; ++i)
        one[at++] = static_cast<std::uint32_t>(i % p->capacity);  // positions
      for (std::int64_t i = 0; i < segments_ * p->capacity; ++i)
        one[at++] = __builtin_bit_cast(std::uint32_t,
                                       1.0f);  // scores below those of new tokens: the pool keeps its own
      for (std::int64_t i = 0; i < segments_; ++i)
        one[at++] = static_cast<std::uint32_t>(p == &c.pool ? p->capacity : 0);
    }
    std::vector<std::uint32_t> all;
    for (std::int64_t i = 0; i < count; ++i)
      all.insert(all.end(), one.begin(), one.end());
    initial_ = uploaded(all);
    current_ = uploaded(all);
    bytes_ = all.size() * 4;
  }
  void reset() const {
    require(cudaMemcpyAsync(current_, initial_, bytes_, cudaMemcpyDeviceToDevice, stream()),
            "cudaMemcpyAsync");
  }
  kvcrumb::batch_cache cache(std::int64_t i) const {
    kvcrumb::batch_cache c = caches_[static_cast<std::size_t>(i) % caches_.size()];
    std::uint32_t* at = current_ + i * words_;
    c.encoded = reinterpret_cast<std::int32_t*>(at);
    at += c.sequences;
    for (kvcrumb::batch_isolated* p : {&c.pool, &c.aux}) {
      if (p->capacity == 0) continue;
      p->positions = reinterpret_cast<std::int32_t*>(at);
      p->scores = reinterpret_cast<float*>(at + segments_ * p->capacity);
      p->counts = reinterpret_cast<std::int32_t*>(at + 2 * segments_ * p->capacity);
      at += isolated_words(*p);
    }
    return c;
  }

 private:
  std::int64_t isolated_words(kvcrumb::batch_isolated const& p) const {
    return p.capacity == 0 ? 0 : segments_ * (2 * p.capacity + 1);
  }
  std::vector<kvcrumb::batch_cache> const& caches_;
  std::int64_t segments_ = 0, words_ = 0;
  std::uint32_t *initial_ = nullptr, *current_ = nullptr;
  std::size_t bytes_ = 0;
};

template <class Scheme>
void append(benchmark::State& state, Scheme const& scheme, problem p, bool flush, enqueue_mode how) {
  using appender = kvcrumb::device::appender<Scheme, head_dim, tile_tokens, float16>;
  constexpr std::int64_t launches = 64;
  arena& memory = arena::get();
  memory.reset();
  // The new token makes the tail full (recent + block), or leaves half a block of room.
  kvcrumb::window const w = scheme.flush;
  int const encoded = (p.tokens - w.recent) / w.block * w.block,
            tail = flush ? w.recent + w.block : w.recent + w.block / 2;
  p.tokens = encoded + tail;
  exact_rows e = rows_after_prompt(scheme, p.tokens);
  e.tail = tail;
  e.tail_capacity = w.recent + w.block + 7;
  layer_copies layers;
  if (!make_layers(scheme, p, e, 64e6, layers)) return skip_too_large(state, layers.bytes);
  append_states const states(layers.caches, launches, encoded);
  kvcrumb::batch_rows<float16 const> const keys = input_rows(p, 1, false), values = input_rows(p, 1, false);
  std::int64_t const bytes = appender::workspace(layers.caches.front());
  auto* const workspace = memory.take<std::byte>(bytes);
  require(cudaMemsetAsync(workspace, 0, static_cast<std::size_t>(bytes), stream()), "cudaMemsetAsync");
  auto const request = [&](std::int64_t i) {
    return kvcrumb::device::append_request<float16>{states.cache(i), keys, values, 1, nullptr};
  };
  if (kvcrumb::status const s = appender::check(scheme, request(0)); s != kvcrumb::status::ok)
    return wrong(state, std::string("refused: ") + kvcrumb::to_string(s));
  measure(
      state, {how, 0.0, static_cast<std::int64_t>(layers.caches.size()), launches},
      [&](std::int64_t i) {
        require(appender::append(scheme, request(i), workspace, bytes, stream()), "append");
      },
      [&] { states.reset(); });
  state.counters["block"] = w.block;  // one step in so many is a flush
  // The benchmark is worth nothing if a step did not do what its name says.
  std::int32_t now = 0;
  require(cudaStreamSynchronize(stream()), "append");
  require(cudaMemcpy(&now, states.cache(launches - 1).encoded, 4, cudaMemcpyDeviceToHost), "cudaMemcpy");
  if (now != encoded + (flush ? w.block : 0)) wrong(state, "encoded is not what the step should leave");
}

template <class Scheme>
void add(char const* name, Scheme const& scheme) {
  for (problem const& p : {problem{1, 32768, 0, 8}, problem{8, 8192, 0, 8}, problem{64, 1024, 0, 8}}) {
    register_cuda(std::string("encode/") + name + "/" + name_of(p) + "/HND",
                  [=](benchmark::State& state) { encode(state, scheme, p, false); });
  }
  problem const nhd{8, 8192, 0, 8};
  register_cuda(std::string("encode/") + name + "/" + name_of(nhd) + "/NHD",
                [=](benchmark::State& state) { encode(state, scheme, nhd, true); });
  for (int const sequences : {1, 64}) {
    problem const p{sequences, 4096, 0, 8};
    for (bool const flush : {false, true}) {
      for (enqueue_mode const how : {enqueue_mode::graph, enqueue_mode::stream}) {
        register_cuda(std::string("append/") + name + "/" + name_of(p) + (flush ? "/flush" : "/idle") +
                          (how == enqueue_mode::graph ? "/graph" : "/stream"),
                      [=](benchmark::State& state) { append(state, scheme, p, flush, how); });
      }
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  namespace schemes = kvcrumb::schemes;
  add("ott2_g128", schemes::ott<2>());
  add("kivi2_g32", schemes::kivi<2>());
  auto four = affine_scheme<4>{};
  four.name = "affine4";
  add("affine4_g128", four);
  auto rows = schemes::qserve4();
  rows.flush = {0, 16};  // rows leave the tail 16 at a time
  add("qserve4", rows);
  return run_cuda_benchmarks(argc, argv);
}
