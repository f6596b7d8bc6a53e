// SPDX-License-Identifier: Apache-2.0
//! @file What the CUDA benchmarks share: device memory, timing by events, the copy bandwidth of this run,
//! main().
#pragma once

#include <benchmark/benchmark.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

namespace kvcrumb_bench {

//! Ends the program: behind an error of the device no number means anything.
inline void require(cudaError_t e, char const* what) {
  if (e == cudaSuccess) return;
  std::fprintf(stderr, "%s failed: %s\n", what, cudaGetErrorString(e));
  std::exit(EXIT_FAILURE);
}

inline int attribute(cudaDeviceAttr which) {
  int value = 0;
  require(cudaDeviceGetAttribute(&value, which, 0), "cudaDeviceGetAttribute");
  return value;
}
inline int multiprocessors() { return attribute(cudaDevAttrMultiProcessorCount); }
inline std::int64_t l2_bytes() { return attribute(cudaDevAttrL2CacheSize); }

//! All device memory of a benchmark: one allocation (nearly all that is free), dealt out from its beginning.
class arena {
 public:
  static arena& get() {
    static arena a;
    return a;
  }
  void reset() { used_ = 0; }
  std::int64_t bytes() const { return bytes_; }
  std::int64_t left() const { return bytes_ - used_; }
  template <class T>
  T* take(std::int64_t count) {
    T* const p = reinterpret_cast<T*>(base_ + used_);
    used_ += (count * static_cast<std::int64_t>(sizeof(T)) + 255) / 256 * 256;
    if (used_ > bytes_) {
      std::fprintf(stderr, "a benchmark took more device memory than it asked for\n");
      std::exit(EXIT_FAILURE);
    }
    return p;
  }

 private:
  arena() {
    std::size_t free = 0, total = 0;
    require(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    char const* const text = std::getenv("KVCRUMB_BENCH_MIB");  // for sanitizers, which multiply memory
    bytes_ =
        text != nullptr ? std::int64_t{std::atoi(text)} << 20 : static_cast<std::int64_t>(free / 100 * 88);
    require(cudaMalloc(&base_, static_cast<std::size_t>(bytes_)), "cudaMalloc");
  }
  std::byte* base_ = nullptr;
  std::int64_t bytes_ = 0, used_ = 0;
};

//! The stream that everything is enqueued in; captures are taken of it.
inline cudaStream_t stream() {
  static cudaStream_t const s = [] {
    cudaStream_t made = nullptr;
    require(cudaStreamCreateWithFlags(&made, cudaStreamNonBlocking), "cudaStreamCreate");
    return made;
  }();
  return s;
}

//! Seconds between two events around what f enqueues.
template <class F>
double seconds_of(F f) {
  static cudaEvent_t const begin = [] {
    cudaEvent_t e = nullptr;
    require(cudaEventCreate(&e), "cudaEventCreate");
    return e;
  }();
  static cudaEvent_t const end = [] {
    cudaEvent_t e = nullptr;
    require(cudaEventCreate(&e), "cudaEventCreate");
    return e;
  }();
  require(cudaEventRecord(begin, stream()), "cudaEventRecord");
  f();
  require(cudaEventRecord(end, stream()), "cudaEventRecord");
  require(cudaEventSynchronize(end), "kernel");
  float milliseconds = 0.0f;
  require(cudaEventElapsedTime(&milliseconds, begin, end), "cudaEventElapsedTime");
  return 1e-3 * static_cast<double>(milliseconds);
}

//! What f enqueues, captured once, launched any number of times.
class graph {
 public:
  template <class F>
  explicit graph(F f) {
    require(cudaStreamBeginCapture(stream(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
    f();
    require(cudaStreamEndCapture(stream(), &graph_), "cudaStreamEndCapture");
  }
  graph(graph const&) = delete;
  graph& operator=(graph const&) = delete;
  ~graph() {
    if (executable_ != nullptr) static_cast<void>(cudaGraphExecDestroy(executable_));
    static_cast<void>(cudaGraphDestroy(graph_));
  }
  void launch() {
    if (executable_ == nullptr) {
      require(cudaGraphInstantiate(&executable_, graph_, 0), "cudaGraphInstantiate");
      require(cudaGraphUpload(executable_, stream()), "cudaGraphUpload");
    }
    require(cudaGraphLaunch(executable_, stream()), "cudaGraphLaunch");
  }
  //! Its kernel nodes, in the order of capture.
  std::vector<cudaKernelNodeParams> kernels() const {
    std::size_t count = 0;
    require(cudaGraphGetNodes(graph_, nullptr, &count), "cudaGraphGetNodes");
    std::vector<cudaGraphNode_t> nodes(count);
    require(cudaGraphGetNodes(graph_, nodes.data(), &count), "cudaGraphGetNodes");
    std::vector<cudaKernelNodeParams> all;
    for (cudaGraphNode_t const node : nodes) {
      cudaGraphNodeType type{};
      require(cudaGraphNodeGetType(node, &type), "cudaGraphNodeGetType");
      if (type != cudaGraphNodeTypeKernel) continue;
      cudaKernelNodeParams p{};
      require(cudaGraphKernelNodeGetParams(node, &p), "cudaGraphKernelNodeGetParams");
      all.push_back(p);
    }
    return all;
  }

 private:
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t executable_ = nullptr;
};

inline double median(std::vector<double> x) {
  std::sort(x.begin(), x.end());
  return x[x.size() / 2];
}

static __global__ void read_kernel(uint4 const* data, std::int64_t count, unsigned* sink) {
  std::int64_t const step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  unsigned sum = 0;
  for (; i + 3 * step < count; i += 4 * step) {
    uint4 const a = __ldcs(data + i), b = __ldcs(data + i + step), c = __ldcs(data + i + 2 * step),
                d = __ldcs(data + i + 3 * step);
    sum ^= a.x ^ a.y ^ a.z ^ a.w ^ b.x ^ b.y ^ b.z ^ b.w ^ c.x ^ c.y ^ c.z ^ c.w ^ d.x ^ d.y ^ d.z ^ d.w;
  }
  if (sum == 0x12345678u) *sink = sum;
}

//! Pseudo-random words of memory that a benchmark streams: zeros may be faster than data.
static __global__ void randomize_kernel(std::uint32_t* data, std::int64_t count) {
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += static_cast<std::int64_t>(gridDim.x) * blockDim.x) {
    std::uint32_t x = static_cast<std::uint32_t>(i) * 2654435761u + 12345u;
    x ^= x >> 15, x *= 0x2C1B3C6Du, x ^= x >> 12;
    data[i] = x;
  }
}

//! Bytes per second of this device, measured at the start of this run.
struct bandwidth {
  double copy = 0.0;  //!< device-to-device cudaMemcpyAsync, bytes read and written
  double read = 0.0;  //!< a kernel that only reads
};
inline bandwidth measure_bandwidth() {
  arena& memory = arena::get();
  memory.reset();
  std::int64_t const bytes =
      std::min<std::int64_t>(std::int64_t{2} << 30, memory.left() / 5 * 2) / 4096 * 4096;
  auto* const from = memory.take<std::uint32_t>(bytes / 4);
  auto* const to = memory.take<std::uint32_t>(bytes / 4);
  unsigned* const sink = memory.take<unsigned>(1);
  randomize_kernel<<<1024, 256, 0, stream()>>>(from, bytes / 4);
  constexpr int rounds = 5, samples = 11;
  bandwidth b;
  std::vector<double> copies, reads;
  for (int i = -2; i < samples; ++i) {
    double const copy = seconds_of([&] {
      for (int j = 0; j < rounds; ++j)
        require(
            cudaMemcpyAsync(to, from, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice, stream()),
            "cudaMemcpyAsync");
    });
    double const read = seconds_of([&] {
      for (int j = 0; j < rounds; ++j)
        read_kernel<<<static_cast<unsigned>(16 * multiprocessors()), 256, 0, stream()>>>(
            reinterpret_cast<uint4 const*>(from), bytes / 16, sink);
    });
    if (i < 0) continue;
    copies.push_back(copy);
    reads.push_back(read);
  }
  b.copy = 2.0 * rounds * static_cast<double>(bytes) / median(copies);
  b.read = rounds * static_cast<double>(bytes) / median(reads);
  memory.reset();
  return b;
}
inline bandwidth const& measured_bandwidth() {
  static bandwidth const b = measure_bandwidth();
  return b;
}

//! How launches are enqueued: one by one, or as one graph.
enum class enqueue_mode { stream, graph };

struct measurement {
  enqueue_mode mode = enqueue_mode::stream;
  double bytes = 0.0;         //!< of one launch, for the rates; 0: none
  std::int64_t copies = 1;    //!< launch i works on copy i % copies of the data
  std::int64_t launches = 0;  //!< per sample; 0: as many as take 2 ms
};

inline constexpr int samples_per_benchmark = 15;

//! Times launches: `enqueue(i)` enqueues launch i; `before()` goes first in every sample. A sample is the
//! time of many launches between two events; medians are reported. At least as many launches as there are
//! copies, so that their data leave the L2 before they are read again.
template <class Enqueue, class Before>
void measure(benchmark::State& state, measurement const& m, Enqueue enqueue, Before before) {
  std::int64_t launches = m.launches;
  auto const all = [&] {
    before();
    for (std::int64_t i = 0; i < launches; ++i)
      enqueue(i);
  };
  if (launches == 0) {
    launches = std::max<std::int64_t>(m.copies, 3);
    seconds_of(all);  // loads the kernels
    double const one = seconds_of(all) / static_cast<double>(launches);
    std::int64_t const wanted = static_cast<std::int64_t>(2e-3 / one) + 1;
    std::int64_t const limit = std::max<std::int64_t>(512, m.copies);
    launches = std::min(limit, (std::max(wanted, m.copies) + m.copies - 1) / m.copies * m.copies);
  }
  std::vector<double> times;
  auto const sample = [&](auto run) {
    for (int i = 0; i < 3; ++i)
      seconds_of(run);
    for (auto _ : state) {
      double const one = seconds_of(run) / static_cast<double>(launches);
      times.push_back(one);
      state.SetIterationTime(one);
    }
  };
  if (m.mode == enqueue_mode::graph) {
    seconds_of(all);  // loads kernels, which a capture should not
    graph g(all);
    sample([&] { g.launch(); });
  } else {
    sample(all);
  }
  std::sort(times.begin(), times.end());
  double const middle = times[times.size() / 2];
  state.counters["us"] = 1e6 * middle;
  state.counters["us_min"] = 1e6 * times.front();
  state.counters["us_p95"] = 1e6 * times[times.size() * 95 / 100];
  state.counters["launches"] = static_cast<double>(launches);
  state.counters["copies"] = static_cast<double>(m.copies);
  if (m.bytes > 0.0) {
    state.counters["MB"] = 1e-6 * m.bytes;
    state.counters["GB_per_s"] = 1e-9 * m.bytes / middle;
    state.counters["percent_of_copy"] = 100.0 * m.bytes / middle / measured_bandwidth().copy;
  }
}
template <class Enqueue>
void measure(benchmark::State& state, measurement const& m, Enqueue enqueue) {
  measure(state, m, enqueue, [] {});
}

//! Copies of data of `bytes` that together exceed the L2 twice and one more.
inline std::int64_t copies_beyond_l2(double bytes) {
  return 1 + static_cast<std::int64_t>(2.0 * static_cast<double>(l2_bytes()) / bytes);
}

//! Whether a result was wrong; the exit status says so.
inline bool anything_wrong = false;
inline void wrong(benchmark::State& state, std::string const& text) {
  anything_wrong = true;
  state.SkipWithError(("wrong: " + text).c_str());
}

//! Registers f(state) with events as the clock.
template <class F>
void register_cuda(std::string const& name, F f) {
  benchmark::RegisterBenchmark(name.c_str(), f)
      ->UseManualTime()
      ->Iterations(samples_per_benchmark)
      ->Unit(benchmark::kMicrosecond);
}

inline void add_context() {
  cudaDeviceProp p{};
  require(cudaGetDeviceProperties(&p, 0), "cudaGetDeviceProperties");
  int driver = 0, runtime = 0;
  require(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  require(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  auto const number = [](char const* name, std::int64_t x) {
    benchmark::AddCustomContext(name, std::to_string(x));
  };
  benchmark::AddCustomContext("device", p.name);
  number("compute_capability", 10 * p.major + p.minor);
  number("multiprocessors", p.multiProcessorCount);
  number("l2_bytes", p.l2CacheSize);
  number("device_memory_MiB", static_cast<std::int64_t>(p.totalGlobalMem >> 20));
  number("sm_clock_limit_kHz", attribute(cudaDevAttrClockRate));
  number("memory_clock_kHz", attribute(cudaDevAttrMemoryClockRate));
  number("memory_bus_bits", attribute(cudaDevAttrGlobalMemoryBusWidth));
  number("shared_bytes_per_multiprocessor", attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor));
  number("ecc", p.ECCEnabled);
  number("cuda_driver_api", driver);
  number("cuda_runtime", runtime);
  number("nvcc", __CUDACC_VER_MAJOR__ * 1000 + __CUDACC_VER_MINOR__ * 10);
  number("copy_MB_per_s", static_cast<std::int64_t>(1e-6 * measured_bandwidth().copy));
  number("read_MB_per_s", static_cast<std::int64_t>(1e-6 * measured_bandwidth().read));
}

//! Body of main, behind the registration. Exit status 77 where there is no device, EXIT_FAILURE if a result
//! was wrong; the list can always be shown.
inline int run_cuda_benchmarks(int argc, char** argv) {
  bool only_list = false;
  for (int i = 1; i < argc; ++i)
    only_list |= std::string_view(argv[i]).starts_with("--benchmark_list_tests");
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return EXIT_FAILURE;
  if (!only_list) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
      std::fprintf(stderr, "skipped: no device\n");
      return 77;
    }
    add_context();
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return anything_wrong ? EXIT_FAILURE : EXIT_SUCCESS;
}

}  // namespace kvcrumb_bench
