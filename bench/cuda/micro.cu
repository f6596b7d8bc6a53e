// SPDX-License-Identifier: Apache-2.0
//! @file What the design of the kernels assumes about the device, measured: fp16 subnormals on tensor cores,
//! rates of instructions, the ceiling of the ring, bandwidths.
#include "cuda/device_layer.cuh"
#include "kvcrumb/warp/ring.cuh"

namespace {

using namespace kvcrumb_bench;
namespace ptx = kvcrumb::ptx;

// ---- rates: 16 warps on each multiprocessor, eight independent chains in each thread

constexpr int chains = 8, rate_threads = 512;

//! The registers of a thread. An operation reads two chains, so that the compiler cannot fold several into
//! one.
struct registers {
  std::uint32_t r[chains];
  float f[chains];
  float c[chains][4];
  std::uint32_t a, b;
  std::uint32_t address;
};

__device__ __forceinline__ std::uint32_t bits(float x) { return __float_as_uint(x); }

struct lop3 {
  static constexpr char const* name = "LOP3";
  __device__ static void run(registers& x, int i) {
    asm volatile("lop3.b32 %0, %0, %1, %2, 0x6A;" : "+r"(x.r[i]) : "r"(x.r[(i + 1) % chains]), "r"(x.a));
  }
};
struct prmt {
  static constexpr char const* name = "PRMT";
  __device__ static void run(registers& x, int i) {
    asm volatile("prmt.b32 %0, %0, %1, %2;" : "+r"(x.r[i]) : "r"(x.r[(i + 1) % chains]), "r"(x.a & 0x7777u));
  }
};
struct multiply_add {
  static constexpr char const* name = "FFMA";
  __device__ static void run(registers& x, int i) {
    asm volatile("fma.rn.f32 %0, %0, %1, %2;" : "+f"(x.f[i]) : "f"(x.f[(i + 1) % chains]), "f"(x.f[i]));
  }
};
//! nvcc 13.0 makes every second one an HFMA2.MMA.
struct hmul2 {
  static constexpr char const* name = "HMUL2";
  __device__ static void run(registers& x, int i) {
    asm volatile("mul.rn.f16x2 %0, %0, %1;" : "+r"(x.r[i]) : "r"(x.r[(i + 1) % chains]));
  }
};
struct f2fp {
  static constexpr char const* name = "F2FP";
  __device__ static void run(registers& x, int i) {
    std::uint32_t r;
    asm volatile("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(x.f[i]), "f"(x.f[(i + 1) % chains]));
    x.f[i] = __uint_as_float(r);
  }
};
struct ex2 {
  static constexpr char const* name = "MUFU.EX2";
  __device__ static void run(registers& x, int i) {
    asm volatile("ex2.approx.ftz.f32 %0, %0;" : "+f"(x.f[i]));
  }
};
struct movm {
  static constexpr char const* name = "MOVM";
  __device__ static void run(registers& x, int i) {
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %0;" : "+r"(x.r[i]));
  }
};
struct hmma {
  static constexpr char const* name = "HMMA.16816";
  __device__ static void run(registers& x, int i) { ptx::mma(x.c[i], x.a, x.b, x.a, x.b, x.b, x.a); }
};
//! The operand A has subnormal fp16 values only: its exponents are 0.
struct hmma_subnormal {
  static constexpr char const* name = "HMMA.16816 subnormal A";
  __device__ static void run(registers& x, int i) {
    ptx::mma(x.c[i], x.r[0], x.r[1], x.r[2], x.r[3], x.b, x.a);
  }
};
//! What the loops over codes do, four logic operations and a product of what they give; counted as one.
struct masked_hmma {
  static constexpr char const* name = "4 LOP3 and HMMA.16816";
  __device__ static void run(registers& x, int i) {
    std::uint32_t* const a = x.r + 4 * i % chains;
#pragma unroll
    for (int j = 0; j < 4; ++j)  // (a & b) ^ c: never the same again, or the compiler computes it once
      asm volatile("lop3.b32 %0, %0, %1, %2, 0x6A;" : "+r"(a[j]) : "r"(0x00FF00FFu), "r"(x.b));
    ptx::mma(x.c[i], a[0], a[1], a[2], a[3], x.b, x.a);
  }
};
struct imma {
  static constexpr char const* name = "IMMA.16832";
  __device__ static void run(registers& x, int i) {
    auto* const c = reinterpret_cast<int*>(x.c[i]);
    asm volatile(
        "mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(x.a), "r"(x.b), "r"(x.a), "r"(x.b), "r"(x.b), "r"(x.a));
  }
};
struct bmma {
  static constexpr char const* name = "BMMA.168256";
  __device__ static void run(registers& x, int i) {
    auto* const c = reinterpret_cast<int*>(x.c[i]);
    asm volatile("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, {%4, %5, %6, "
                 "%7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(x.a), "r"(x.b), "r"(x.a), "r"(x.b), "r"(x.b), "r"(x.a));
  }
};
//! 16 bytes of a lane, without bank conflicts.
struct lds128 {
  static constexpr char const* name = "LDS.128";
  __device__ static void run(registers& x, int i) {
    std::uint32_t r[4];
    asm volatile("ld.volatile.shared.v4.u32 {%0, %1, %2, %3}, [%4];"  // else equal loads are joined
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(x.address + static_cast<std::uint32_t>(512 * i)));
    x.r[i] += r[i % 4];
  }
};

//! Clock cycles of each block, in which 16 warps issue iterations * 4 * chains instructions each.
template <class Operation>
__global__ void __launch_bounds__(rate_threads)
    rate_kernel(int iterations, std::uint32_t seed, long long* cycles, std::uint32_t* sink) {
  __shared__ __align__(16) std::uint32_t shared[128 * chains];
  for (int i = static_cast<int>(threadIdx.x); i < 128 * chains; i += rate_threads)
    shared[i] = static_cast<std::uint32_t>(i) * seed;
  registers x;
  x.a = 0x3C013C01u ^ (seed & 0x00FF00FFu);
  x.b = 0x2C012C01u ^ (seed & 0x00FF00FFu);
  x.address = ptx::shared_address(shared) + 16u * (threadIdx.x & 31u);
#pragma unroll
  for (int i = 0; i < chains; ++i) {
    x.r[i] = (seed * static_cast<std::uint32_t>(i + 3) + threadIdx.x) & 0x03FF03FFu;
    x.f[i] = 1.0f + static_cast<float>(i) * 0x1p-20f;
    x.c[i][0] = x.c[i][1] = x.c[i][2] = x.c[i][3] = 0.0f;
  }
  __syncthreads();
  long long const begin = clock64();
#pragma unroll 1
  for (int n = 0; n < iterations; ++n) {
#pragma unroll
    for (int u = 0; u < 4; ++u) {
#pragma unroll
      for (int i = 0; i < chains; ++i)
        Operation::run(x, i);
    }
  }
  __syncthreads();
  long long const end = clock64();
  std::uint32_t sum = 0;
#pragma unroll
  for (int i = 0; i < chains; ++i)
    sum ^= x.r[i] ^ bits(x.f[i]) ^ bits(x.c[i][0]) ^ bits(x.c[i][1]) ^ bits(x.c[i][2]) ^ bits(x.c[i][3]);
  sink[blockIdx.x * rate_threads + threadIdx.x] = sum;
  if (threadIdx.x == 0) cycles[blockIdx.x] = end - begin;
}

template <class Operation>
void rate(benchmark::State& state) {
  constexpr int iterations = 2048;
  int const blocks = multiprocessors();
  arena& memory = arena::get();
  memory.reset();
  auto* const cycles = memory.take<long long>(blocks);
  auto* const sink = memory.take<std::uint32_t>(std::int64_t{blocks} * rate_threads);
  measure(state, {enqueue_mode::stream, 0.0, 1, 4}, [&](std::int64_t) {
    rate_kernel<Operation>
        <<<static_cast<unsigned>(blocks), rate_threads, 0, stream()>>>(iterations, 12345u, cycles, sink);
    require(cudaGetLastError(), "rate_kernel");
  });
  std::vector<long long> all(static_cast<std::size_t>(blocks));
  require(cudaMemcpy(all.data(), cycles, all.size() * sizeof(long long), cudaMemcpyDeviceToHost),
          "cudaMemcpy");
  std::sort(all.begin(), all.end());
  double const clocks = static_cast<double>(all[all.size() / 2]);
  double const instructions = 4.0 * chains * iterations * (rate_threads / 32);
  state.counters["per_clock_per_multiprocessor"] = instructions / clocks;
  state.counters["clocks_per_subpartition"] = 4.0 * clocks / instructions;
  state.counters["clock_MHz"] = clocks / state.counters["us"];
}

// ---- fp16 subnormals on tensor cores

__global__ void subnormal_kernel(std::uint16_t const* a, std::uint16_t const* b, float* c, int products) {
  int const lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  for (int i = 0; i < products; ++i) {
    std::uint16_t const* const x = a + 256 * i;
    std::uint16_t const* const y = b + 128 * i;
    auto const pair = [](std::uint16_t low, std::uint16_t high) {
      return static_cast<std::uint32_t>(low) | static_cast<std::uint32_t>(high) << 16;
    };
    auto const row = [&](int r, int k) { return pair(x[16 * r + k], x[16 * r + k + 1]); };
    auto const column = [&](int k) { return pair(y[8 * k + g], y[8 * (k + 1) + g]); };
    float sum[4] = {};
    ptx::mma(sum, row(g, 2 * t), row(g + 8, 2 * t), row(g, 2 * t + 8), row(g + 8, 2 * t + 8), column(2 * t),
             column(2 * t + 8));
    for (int j = 0; j < 4; ++j)
      c[128 * i + 8 * (g + j / 2 * 8) + 2 * t + j % 2] = sum[j];
  }
}

//! A has fp16 patterns 0 to 2047, which are the integers times 2^-24; B has small integers: every sum is
//! exact.
void subnormal_sums(benchmark::State& state) {
  constexpr int products = 4096;
  arena& memory = arena::get();
  memory.reset();
  std::mt19937 random{5};
  std::vector<std::uint16_t> a(256 * products), b(128 * products);
  std::vector<int> factors(b.size());
  for (std::uint16_t& x : a)
    x = static_cast<std::uint16_t>(random() % 2048u);
  constexpr std::uint16_t integers[] = {0, 0x3C00, 0x4000, 0x4200, 0x4400, 0x4500, 0x4600, 0x4700};  // 0 to 7
  for (std::size_t i = 0; i < b.size(); ++i) {
    int const n = static_cast<int>(random() % 15u) - 7;
    factors[i] = n;
    b[i] = static_cast<std::uint16_t>(integers[n < 0 ? -n : n] | (n < 0 ? 0x8000 : 0));
  }
  std::uint16_t const *da = uploaded(a), *db = uploaded(b);
  auto* const dc = memory.take<float>(128 * products);
  measure(state, {enqueue_mode::stream, 0.0, 1, 4}, [&](std::int64_t) {
    subnormal_kernel<<<1, 32, 0, stream()>>>(da, db, dc, products);
    require(cudaGetLastError(), "subnormal_kernel");
  });
  std::vector<float> c(128 * products);
  require(cudaMemcpy(c.data(), dc, c.size() * 4, cudaMemcpyDeviceToHost), "cudaMemcpy");
  std::int64_t wrong_sums = 0;
  for (std::size_t i = 0; i < c.size(); ++i) {
    std::size_t const product = i / 128, row = i / 8 % 16, column = i % 8;
    int sum = 0;
    for (std::size_t k = 0; k < 16; ++k)
      sum += a[256 * product + 16 * row + k] * factors[128 * product + 8 * k + column];
    wrong_sums += c[i] == static_cast<float>(sum) * 0x1p-24f ? 0 : 1;
  }
  state.counters["sums"] = static_cast<double>(c.size());
  state.counters["wrong_sums"] = static_cast<double>(wrong_sums);
  if (wrong_sums != 0) wrong(state, "tensor cores do not keep fp16 subnormals");
}

// ---- the ring without compute

constexpr int ring_warps = 4;

//! Every block streams its part of all tiles through the rings of its warps and drops them.
template <class Blob>
__global__ void __launch_bounds__(32 * ring_warps, 3)
    ring_kernel(__grid_constant__ kvcrumb::batch_cache const cache, int tiles, std::int64_t total) {
  using ring_type = kvcrumb::warp::ring<Blob>;
  struct storage {
    typename ring_type::shared_barriers barriers[ring_warps];
  };
  KVCRUMB_SHARED(storage, shared);
  KVCRUMB_SHARED_DYNAMIC(dynamic);
  int const lane = static_cast<int>(threadIdx.x) & 31, warp = static_cast<int>(threadIdx.x) >> 5;
  ring_type ring{ptx::shared_address(dynamic) + static_cast<std::uint32_t>(warp * Blob::warp_bytes),
                 ptx::shared_address(&shared.barriers[warp]), cache, ring_warps, lane};
  ring.init_barriers();
  __syncthreads();
  std::int64_t at = total * blockIdx.x / gridDim.x;
  std::int64_t const end = total * (blockIdx.x + 1) / gridDim.x;
  while (at < end) {
    int const segment = static_cast<int>(at / tiles), first = static_cast<int>(at % tiles);
    int const last = end - at < tiles - first ? first + static_cast<int>(end - at) : tiles;
    ring.start(segment / cache.kv_heads, segment % cache.kv_heads, first + warp, last);
    for (int tile = first + warp; tile < last; tile += ring_warps) {
      ring.begin_tile();
      kvcrumb::warp::unrolled<Blob::chunks>([&]<int Chunk>() {
        static_cast<void>(ring.wait());
        ring.template release<Chunk>();
      });
      ring.end_tile();
    }
    at += last - first;
    __syncwarp();
  }
}

template <class Scheme>
void ring(benchmark::State& state, Scheme const& scheme, problem const& p) {
  using blob = kvcrumb::warp::blob_traits<Scheme, head_dim, tile_tokens>;
  arena::get().reset();
  layer_copies layers;
  if (!make_layers(scheme, p, {}, 64e6, layers)) return skip_too_large(state, layers.bytes);
  constexpr int bytes = ring_warps * blob::warp_bytes;
  auto* const kernel = ring_kernel<blob>;
  int resident = 0;
  require(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
          "cudaFuncSetAttribute");
  require(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&resident, kernel, 32 * ring_warps, bytes),
          "occupancy");
  int const tiles = p.tokens / tile_tokens;
  std::int64_t const total = std::int64_t{p.sequences} * p.kv_heads * tiles;
  auto const blocks = static_cast<unsigned>(resident * multiprocessors());
  measure(state, {enqueue_mode::graph, layers.bytes, static_cast<std::int64_t>(layers.caches.size())},
          [&](std::int64_t i) {
            kernel<<<blocks, 32 * ring_warps, bytes, stream()>>>(
                layers.caches[static_cast<std::size_t>(i) % layers.caches.size()], tiles, total);
            require(cudaGetLastError(), "ring_kernel");
          });
  state.counters["resident_blocks"] = resident;
  state.counters["bytes_in_flight_per_multiprocessor"] = static_cast<double>(resident) * bytes;
}

// ---- bandwidth

enum class traffic { copy, read };
void bandwidth_of(benchmark::State& state, traffic which, double megabytes) {
  arena& memory = arena::get();
  memory.reset();
  auto const bytes = static_cast<std::int64_t>(megabytes * 1e6) / 4096 * 4096;
  std::int64_t const copies = copies_beyond_l2(static_cast<double>(bytes));
  if (2 * (copies + 1) * bytes > memory.left())
    return skip_too_large(state, 2.0 * static_cast<double>(copies * bytes));
  auto* const from = memory.take<std::uint32_t>(copies * bytes / 4);
  auto* const to = memory.take<std::uint32_t>(copies * bytes / 4);
  unsigned* const sink = memory.take<unsigned>(1);
  randomize_kernel<<<1024, 256, 0, stream()>>>(from, copies * bytes / 4);
  double const moved = static_cast<double>(bytes) * (which == traffic::copy ? 2.0 : 1.0);
  measure(state, {enqueue_mode::graph, moved, copies}, [&](std::int64_t i) {
    std::int64_t const at = i % copies * (bytes / 4);
    if (which == traffic::copy) {
      require(cudaMemcpyAsync(to + at, from + at, static_cast<std::size_t>(bytes), cudaMemcpyDeviceToDevice,
                              stream()),
              "cudaMemcpyAsync");
    } else {
      read_kernel<<<static_cast<unsigned>(16 * multiprocessors()), 256, 0, stream()>>>(
          reinterpret_cast<uint4 const*>(from + at), bytes / 16, sink);
    }
  });
}

__global__ void empty_kernel() {}
void empty(benchmark::State& state, enqueue_mode how) {
  measure(state, {how, 0.0, 1, 512}, [](std::int64_t) { empty_kernel<<<1, 32, 0, stream()>>>(); });
}

template <class Operation>
void add_rate() {
  register_cuda(std::string("rate/") + Operation::name,
                [](benchmark::State& state) { rate<Operation>(state); });
}

}  // namespace

int main(int argc, char** argv) {
  register_cuda("tensor_core/subnormal_sums", subnormal_sums);
  add_rate<hmma>();
  add_rate<hmma_subnormal>();
  add_rate<masked_hmma>();
  add_rate<lop3>();
  add_rate<prmt>();
  add_rate<multiply_add>();
  add_rate<hmul2>();
  add_rate<f2fp>();
  add_rate<ex2>();
  add_rate<movm>();
  add_rate<imma>();
  add_rate<bmma>();
  add_rate<lds128>();
  register_cuda("launch/empty/stream", [](benchmark::State& state) { empty(state, enqueue_mode::stream); });
  register_cuda("launch/empty/graph", [](benchmark::State& state) { empty(state, enqueue_mode::graph); });
  for (double const megabytes : {16.0, 64.0, 256.0, 1024.0, 4096.0}) {
    std::string const size = std::to_string(static_cast<int>(megabytes)) + "MB";
    register_cuda("bandwidth/copy/" + size,
                  [=](benchmark::State& state) { bandwidth_of(state, traffic::copy, megabytes); });
    register_cuda("bandwidth/read/" + size,
                  [=](benchmark::State& state) { bandwidth_of(state, traffic::read, megabytes); });
  }
  for (problem const& p : {problem{16, 32768, 0, 8}, problem{1, 32768, 0, 8}}) {
    auto const add = [&](char const* name, auto const& scheme) {
      register_cuda(std::string("ring/") + name + "/" + name_of(p),
                    [=](benchmark::State& state) { ring(state, scheme, p); });
    };
    add("affine2_g128", affine_scheme<2>{});
    add("affine3_g128", affine_scheme<3>{});
    add("affine4_g128", affine_scheme<4>{});
    add("affine8_g128", affine_scheme<8>{});
    add("fp16_raw", fp16_scheme{});
  }
  return run_cuda_benchmarks(argc, argv);
}
