// SPDX-License-Identifier: Apache-2.0
//! @file Decode attention, one query token: the time of one layer's run() (a plan serves all layers of a
//! step), in one mode that of plan() and run().
//!
//! `GB_per_s` counts the bytes that the format makes attention read, once: codes, parameters and masks of the
//! tiles in use, exact rows, queries, outputs. Launches take turns on copies of the layer that together
//! exceed the L2 twice. Modes: stream, one launch after another; graph, the same captured; overlap, a graph
//! with programmatic launches; graph_with_plan, a graph in which plan() goes before every run().
#include <functional>
#include <memory>

#include "cuda/device_layer.cuh"
#include "kvcrumb/device/decode.cuh"

namespace {

using namespace kvcrumb_bench;

enum class mode { stream, graph, overlap, graph_with_plan };

std::shared_ptr<void> held;
std::string held_name;

//! Layers, queries, outputs and workspace of the case that runs now. Modes of one case share them.
template <class Scheme>
class decode_work {
 public:
  using decoder = kvcrumb::device::decoder<Scheme, head_dim, tile_tokens, float16, float16>;

  decode_work(Scheme const& scheme, problem const& p, exact_rows const& e) : scheme_{scheme} {
    arena& memory = arena::get();
    memory.reset();
    std::int64_t const rows = std::int64_t{p.sequences} * p.query_heads, halves = rows * head_dim;
    double const room = 64e6 + 8.0 * static_cast<double>(halves);
    fits_ = make_layers(scheme, p, e, room, layers_);
    if (!fits_) return;
    request_.q = {filled_rows(halves), p.query_heads * std::int64_t{head_dim}, head_dim, head_dim};
    outputs_ = memory.take<float16>(halves);
    output_halves_ = halves;
    request_.o = {outputs_, p.query_heads * std::int64_t{head_dim}, head_dim, head_dim};
    request_.lse = memory.take<float>(rows);
    request_.query_heads = p.query_heads;
    request_.options.blocks = blocks_at_once();
    request_.cache = layers_.caches.front();
    if (kvcrumb::status const s = decoder::check(scheme_, request_); s != kvcrumb::status::ok) {
      std::fprintf(stderr, "decode %s: %s\n", scheme_.name, kvcrumb::to_string(s));
      std::exit(EXIT_FAILURE);
    }
    require(decoder::workspace(request_, workspace_bytes_), "workspace");
    workspace_ = memory.take<std::byte>(workspace_bytes_);
    layers_.bytes += 4.0 * static_cast<double>(halves);
    plan();
  }
  bool fits() const { return fits_; }
  double bytes() const { return layers_.bytes; }
  std::int64_t copies() const { return static_cast<std::int64_t>(layers_.caches.size()); }
  int blocks() const { return request_.options.blocks; }
  void set_overlap(bool overlap) { request_.options.overlap = overlap; }

  void plan() { require(decoder::plan(scheme_, request_, workspace_, workspace_bytes_, stream()), "plan"); }
  void run(std::int64_t i) {
    request_.cache = layers_.caches[static_cast<std::size_t>(i % copies())];
    require(decoder::run(scheme_, request_, workspace_, workspace_bytes_, stream()), "run");
  }
  //! Whether a run fills the outputs with finite numbers.
  bool sane() {
    std::vector<std::uint16_t> o(static_cast<std::size_t>(output_halves_));
    require(cudaMemsetAsync(outputs_, 0xFF, 2 * o.size(), stream()), "cudaMemset");
    run(0);
    require(cudaStreamSynchronize(stream()), "decode");
    require(cudaMemcpy(o.data(), outputs_, 2 * o.size(), cudaMemcpyDeviceToHost), "cudaMemcpy");
    std::uint32_t any = 0;
    for (std::uint16_t const x : o) {
      if ((x & 0x7C00u) == 0x7C00u) return false;
      any |= x & 0x7FFFu;
    }
    return any != 0;
  }

 private:
  //! The grid for which plan() and run() would ask the runtime in every call.
  static int blocks_at_once() {
    using config = typename decoder::config;
    constexpr std::size_t bytes = kvcrumb::block::decode<config>::dynamic_bytes;
    auto* const kernel = kvcrumb::kernel::decode_kernel<config, typename decoder::arguments>;
    int resident = 0;
    require(
        cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
        "cudaFuncSetAttribute");
    require(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, config::threads, bytes),
            "occupancy");
    return resident * multiprocessors();
  }

  Scheme scheme_;
  layer_copies layers_;
  typename decoder::request_type request_{};
  std::byte* workspace_ = nullptr;
  float16* outputs_ = nullptr;
  std::int64_t workspace_bytes_ = 0, output_halves_ = 0;
  bool fits_ = false;
};

//! Keeps the work of the last case, because its modes follow each other.
template <class Scheme>
decode_work<Scheme>& work_of(std::string const& name, Scheme const& scheme, problem const& p,
                             exact_rows const& e) {
  if (held_name != name) {
    held = std::make_shared<decode_work<Scheme>>(scheme, p, e);
    held_name = name;
  }
  return *static_cast<decode_work<Scheme>*>(held.get());
}

template <class Scheme>
void decode(benchmark::State& state, std::string const& name, Scheme const& scheme, problem const& p,
            exact_rows const& e, mode how) {
  decode_work<Scheme>& work = work_of(name, scheme, p, e);
  if (!work.fits()) return skip_too_large(state, work.bytes());
  work.set_overlap(how == mode::overlap);
  if (!work.sane()) return wrong(state, "the output is not finite, or nothing was written");
  measure(state,
          {how == mode::stream ? enqueue_mode::stream : enqueue_mode::graph, work.bytes(), work.copies()},
          [&](std::int64_t i) {
            if (how == mode::graph_with_plan) work.plan();
            work.run(i);
          });
  state.counters["exact_rows"] = e.sum();
  state.counters["blocks"] = work.blocks();
}

//! Enqueues one of the kernels of run() alone: kernel `which` of a capture of it.
template <class Scheme>
void part(benchmark::State& state, std::string const& name, Scheme const& scheme, problem const& p,
          exact_rows const& e, int which) {
  decode_work<Scheme>& work = work_of(name, scheme, p, e);
  if (!work.fits()) return skip_too_large(state, work.bytes());
  work.set_overlap(false);
  if (!work.sane()) return wrong(state, "the output is not finite, or nothing was written");
  std::vector<std::unique_ptr<graph>> captures;  // own the arguments
  std::vector<cudaKernelNodeParams> kernels;
  for (std::int64_t i = 0; i < work.copies(); ++i) {
    captures.push_back(std::make_unique<graph>([&] {
      work.plan();
      work.run(i);
    }));
    std::vector<cudaKernelNodeParams> const all = captures.back()->kernels();
    if (all.size() != 3) return wrong(state, "plan and run are not three kernels");
    kernels.push_back(all[static_cast<std::size_t>(which)]);
  }
  measure(state, {enqueue_mode::graph, 0.0, work.copies()}, [&](std::int64_t i) {
    cudaKernelNodeParams const& k = kernels[static_cast<std::size_t>(i % work.copies())];
    require(cudaLaunchKernel(k.func, k.gridDim, k.blockDim, k.kernelParams, k.sharedMemBytes, stream()),
            "cudaLaunchKernel");
  });
}

//! The shapes of the goals come first, in case that the time ends.
enum class phase { goals, others };

template <class Scheme>
void add(phase now, char const* name, Scheme const& scheme, std::function<exact_rows(int)> const& rows_of) {
  constexpr int heads[][2] = {{32, 8}, {32, 32}, {64, 8}};
  for (int const sequences : {1, 16, 64}) {
    for (int const tokens : {4096, 32768, 131072}) {
      if ((now == phase::goals) != (tokens == 32768 && sequences < 64)) continue;
      for (auto const& h : heads) {
        problem const p{sequences, tokens, h[0], h[1]};
        exact_rows const e = rows_of(tokens);
        std::string const what = std::string(name) + "/" + name_of(p);
        auto const one = [&](char const* suffix, mode how) {
          register_cuda("decode/" + what + "/" + suffix,
                        [=](benchmark::State& state) { decode(state, what, scheme, p, e, how); });
        };
        if (sequences < 64) one("stream", mode::stream);  // one launch is longer than it takes to enqueue
        one("graph", mode::graph);
        if (sequences > 1) continue;
        one("overlap", mode::overlap);
        one("graph_with_plan", mode::graph_with_plan);
      }
    }
  }
}
template <class Scheme>
void add(phase now, char const* name, Scheme const& scheme) {
  add(now, name, scheme, [scheme](int tokens) { return exact_rows_of(scheme, tokens); });
}
//! All tokens encoded: tiles only.
exact_rows no_rows(int) { return {}; }

}  // namespace

int main(int argc, char** argv) {
  namespace schemes = kvcrumb::schemes;
  auto const ott = schemes::ott<2>();
  for (phase const now : {phase::goals, phase::others}) {
    add(now, "affine2_g128", affine_scheme<2>{}, no_rows);
    // The same tiles with the tail that OTT's window leaves: what tracing costs beyond it is pool, masks and
    // flags.
    add(now, "affine2_g128_tail", affine_scheme<2>{}, [ott](int tokens) {
      exact_rows e = exact_rows_of(ott, tokens);
      e.pool = e.pool_capacity = e.aux = e.aux_capacity = 0;
      return e;
    });
    add(now, "affine3_g128", affine_scheme<3>{}, no_rows);
    add(now, "affine4_g128", affine_scheme<4>{}, no_rows);
    add(now, "affine8_g128", affine_scheme<8>{}, no_rows);
    add(now, "ott2_g128", ott);
    add(now, "kivi2_g32", schemes::kivi<2>());
    add(now, "qserve4", schemes::qserve4());
    add(now, "nqkv4", schemes::nqkv4());
    add(now, "fp16_raw", fp16_scheme{}, no_rows);
  }

  problem const p{1, 32768, 32, 8};
  char const* const parts[] = {"plan", "decode", "combine"};
  for (int i = 0; i < 3; ++i) {
    register_cuda(
        std::string("decode_part/ott2_g128/") + name_of(p) + "/" + parts[i],
        [=](benchmark::State& state) { part(state, "part_ott2", ott, p, exact_rows_of(ott, p.tokens), i); });
    register_cuda(
        std::string("decode_part/affine2_g128/") + name_of(p) + "/" + parts[i],
        [=](benchmark::State& state) { part(state, "part_affine2", affine_scheme<2>{}, p, {}, i); });
  }
  return run_cuda_benchmarks(argc, argv);
}
