// SPDX-License-Identifier: Apache-2.0
//! @file Every wrapper of ptx.cuh on the device against its emulated body (conformance_emulated.cpp): bit for
//! bit where PTX is exact, within the documented error where it is not. Exit status 77 without a device.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "gpu/conformance.hpp"
#include "kvcrumb/device/launch.cuh"
#include "kvcrumb/numeric/arithmetic.hpp"
#include "kvcrumb/numeric/storage_float.hpp"

namespace kvcrumb::conformance {

namespace {

#include "gpu/conformance_kernels.inl"

__global__ void elementwise_kernel(wrapper w, std::uint32_t const* in, std::uint32_t* out, int items,
                                   int words) {
  for (int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); i < items;
       i += static_cast<int>(gridDim.x * blockDim.x))
    out[i] = apply(w, in + static_cast<std::int64_t>(i) * words);
}

//! Starts its dependents first and writes late.
__global__ void early_kernel(std::uint32_t* data, int n) {
  ptx::wait_for_dependencies();
  ptx::release_dependents();
  for (int i = 0; i < 200; ++i)
    __nanosleep(1000);
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x))
    data[i] = data[i] * 3u + 1u;
}

void require(cudaError_t e, char const* what) {
  if (e == cudaSuccess) return;
  std::printf("FAIL %s: %s\n", what, cudaGetErrorString(e));
  std::exit(EXIT_FAILURE);  // nothing works behind such an error
}

words on_device(wrapper w, words const& in) {
  traffic const t = traffic_of(w);
  int const n = static_cast<int>(in.size()) / t.in, items = n / 32;
  words out(static_cast<std::size_t>(n) * static_cast<std::size_t>(t.out));
  std::uint32_t *x = nullptr, *y = nullptr;
  require(cudaMalloc(&x, in.size() * 4), "cudaMalloc");
  require(cudaMalloc(&y, out.size() * 4), "cudaMalloc");
  require(cudaMemcpy(x, in.data(), in.size() * 4, cudaMemcpyHostToDevice), "cudaMemcpy");
  require(cudaMemset(y, 0xA5, out.size() * 4), "cudaMemset");
  switch (w) {
    case wrapper::mma:
    case wrapper::multiply: mma_kernel<<<1, 32>>>(x, y, items, w == wrapper::mma); break;
    case wrapper::transpose_8x8: transpose_kernel<<<1, 32>>>(x, y, items); break;
    case wrapper::shared_memory: shared_kernel<<<1, 32>>>(x, y, items); break;
    case wrapper::bulk_copy: bulk_kernel<<<1, 32>>>(x, y, items, false); break;
    case wrapper::proxy_fence: bulk_kernel<<<1, 32>>>(x, y, items, true); break;
    case wrapper::copy_async: async_kernel<<<1, 32>>>(x, y, items); break;
    case wrapper::load_global_128: global_kernel<<<1, 32>>>(x, y, items); break;
    default: elementwise_kernel<<<64, 128>>>(w, x, y, n, t.in); break;
  }
  require(cudaGetLastError(), "launch");
  require(cudaMemcpy(out.data(), y, out.size() * 4, cudaMemcpyDeviceToHost), "kernel");
  require(cudaFree(x), "cudaFree");
  require(cudaFree(y), "cudaFree");
  return out;
}

int failures = 0;

void report(char const* name, std::size_t cases, std::size_t wrong, double worst, double allowed,
            char const* unit) {
  std::printf("%s %-28s %9zu cases, %zu wrong", wrong == 0 ? "ok  " : "FAIL", name, cases, wrong);
  if (unit != nullptr) std::printf(", largest error %.3g of %.3g %s", worst, allowed, unit);
  std::printf("\n");
  failures += wrong == 0 ? 0 : 1;
}

void show(std::size_t i, std::uint32_t got, std::uint32_t expected) {
  std::printf("     word %zu: 0x%08X, expected 0x%08X\n", i, got, expected);
}

//! Equal words. With `any_nan` every NaN (of a float) equals every other.
void check_bits(char const* name, wrapper w, words const& in, bool any_nan = false) {
  words const got = on_device(w, in), expected = emulated(w, in);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    bool const both_nan =
        any_nan && std::isnan(std::bit_cast<float>(got[i])) && std::isnan(std::bit_cast<float>(expected[i]));
    if (got[i] == expected[i] || both_nan) continue;
    if (++wrong <= 4) show(i, got[i], expected[i]);
  }
  report(name, got.size(), wrong, 0, 0, nullptr);
}

//! Distance in units of the last place of the expected value; 0 for equal infinities and two NaN, and where
//! one side is the smallest normal number and the other is 0, because an error may cross the limit of
//! flushing.
double distance(std::uint32_t got, std::uint32_t expected) {
  float const g = std::bit_cast<float>(got), e = std::bit_cast<float>(expected);
  if (got == expected || (std::isnan(g) && std::isnan(e))) return 0.0;
  if (!std::isfinite(g) || !std::isfinite(e)) return INFINITY;
  float const limit = 0x1.000004p-126f;
  if (std::fabs(g) <= limit && std::fabs(e) <= limit && std::signbit(g) == std::signbit(e)) return 0.0;
  int exponent = 0;
  std::frexp(e == 0.0f ? 0x1p-126f : e, &exponent);
  return std::fabs(static_cast<double>(g) - static_cast<double>(e)) /
         std::ldexp(1.0, std::max(exponent, -125) - 24);
}

void check_ulp(char const* name, wrapper w, words const& in, double allowed) {
  words const got = on_device(w, in), expected = emulated(w, in);
  std::size_t wrong = 0;
  double worst = 0.0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    double const d = distance(got[i], expected[i]);
    worst = std::max(worst, d);
    if (d <= allowed) continue;
    if (++wrong <= 4) show(i, got[i], expected[i]);
  }
  report(name, got.size(), wrong, worst, allowed, "ulp");
}

float half_value(std::uint32_t h) {
  std::uint32_t const e = h >> 10 & 31u, m = h & 0x3FFu;
  float const x = e == 0 ? std::ldexp(static_cast<float>(m), -24)
                         : std::ldexp(static_cast<float>(m + 1024), static_cast<int>(e) - 25);
  return (h & 0x8000u) != 0 ? -x : x;
}

//! Of element (row, column) of an item's product: |c| + sum of |a b|.
double magnitude(std::uint32_t const* item, int row, int column) {
  auto const half_of = [&](int lane, int word, int odd) {
    return static_cast<double>(half_value(item[10 * lane + word] >> (16 * odd) & 0xFFFFu));
  };
  double sum = 0.0;
  for (int k = 0; k < 16; ++k) {
    int const t = k % 8 / 2, upper = k / 8, odd = k % 2;
    double const a = half_of(4 * (row % 8) + t, 2 * upper + row / 8, odd);
    double const b = half_of(4 * column + t, 4 + upper, odd);
    sum += std::fabs(a * b);
  }
  int const lane = 4 * (row % 8) + column / 2, word = 6 + 2 * (row / 8) + column % 2;
  return sum + std::fabs(static_cast<double>(std::bit_cast<float>(item[10 * lane + word])));
}

//! The emulator adds exact products in double and rounds once. Tensor cores align the products to the largest
//! and cut them off: 2^-20 of the sum of magnitudes bounds 17 terms that each lose a unit of 24 bits.
void check_mma(char const* name, words const& in, double allowed, wrapper w = wrapper::mma) {
  words const got = on_device(w, in), expected = emulated(w, in);
  std::size_t wrong = 0;
  double worst = 0.0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    std::size_t const item = i / 128, lane = i / 4 % 32, j = i % 4;
    int const row = static_cast<int>(lane / 4 + 8 * (j / 2)),
              column = static_cast<int>(2 * (lane % 4) + j % 2);
    double const g = static_cast<double>(std::bit_cast<float>(got[i])),
                 e = static_cast<double>(std::bit_cast<float>(expected[i]));
    double const scale = magnitude(in.data() + 320 * item, row, column);
    double const d = g == e ? 0.0 : std::fabs(g - e) / scale;
    if (!(d <= worst)) worst = d;
    if (d <= allowed) continue;
    if (++wrong <= 4) show(i, got[i], expected[i]);
  }
  report(name, got.size(), wrong, worst, allowed, "of the sum of magnitudes");
}

std::uint32_t half_of_integer(int n) {
  if (n == 0) return 0;
  int const magnitude = std::abs(n), exponent = std::bit_width(static_cast<unsigned>(magnitude)) - 1;
  std::uint32_t const mantissa = static_cast<std::uint32_t>((magnitude << 10 >> exponent) & 0x3FF);
  return (n < 0 ? 0x8000u : 0u) | static_cast<std::uint32_t>(exponent + 15) << 10 | mantissa;
}

//! Fragments of `items` products: a(random), b(random) fp16 patterns, c(random) floats.
template <class A, class B, class C>
words fragments(int items, A a, B b, C c) {
  words in;
  std::mt19937 random{7};
  for (int i = 0; i < 32 * items; ++i) {
    for (int j = 0; j < 4; ++j) {
      std::uint32_t const low = a(random);
      in.push_back(low | a(random) << 16);
    }
    for (int j = 0; j < 2; ++j) {
      std::uint32_t const low = b(random);
      in.push_back(low | b(random) << 16);
    }
    for (int j = 0; j < 4; ++j)
      in.push_back(std::bit_cast<std::uint32_t>(static_cast<float>(c(random))));
  }
  return in;
}

words random_words(std::size_t n, unsigned seed) {
  std::mt19937 random{seed};
  words in(n);
  for (std::uint32_t& x : in)
    x = static_cast<std::uint32_t>(random());
  return in;
}

//! Random words, and every special value of fp16 in both halves with every other.
words half_pairs() {
  words in = random_words(1 << 20, 1);
  std::uint32_t const special[] = {0,      1,      0x3FF,  0x400,  0x401,  0x3BFF, 0x3C00,
                                   0x3C01, 0x7BFF, 0x7C00, 0x7C01, 0x7E00, 0x7FFF, 0x5555};
  for (std::uint32_t const a : special) {
    for (std::uint32_t const b : special) {
      for (std::uint32_t signs = 0; signs < 4; ++signs) {
        in.push_back(a | (b | (signs & 1u) << 15) << 16);
        in.push_back((b | (signs >> 1) << 15) | a << 16);
      }
    }
  }
  return in;
}

//! The same words, as many as fill whole triples.
words triples_of(words in) {
  while (in.size() % 3 != 0)
    in.push_back(0x3C003C00u);
  return in;
}

//! Items of n floats between 2^-8 and 4 of both signs, and everything that is no such number.
words floats_near_one(std::size_t n) {
  words in = random_words(n << 18, 6);
  for (std::size_t i = 0; i < in.size() - (n << 14); ++i)
    in[i] = (in[i] & 0x80FFFFFFu) | (0x3B800000u + (in[i] >> 3 & 0x04000000u));
  for (std::uint32_t const a : {0u, 0x80000000u, 0x3F800000u, 0xBF800000u, 0x7F800000u, 0xFF800000u,
                                0x7FC00000u, 0x3F800001u, 0x3F7FFFFFu, 1u, 0x7F7FFFFFu, 0xFF7FFFFFu}) {
    for (std::uint32_t const b :
         {0u, 0x80000000u, 0x3F800000u, 0xBF800000u, 0x7F800000u, 0x7FC00000u, 0x33800000u}) {
      in.insert(in.end(), {a, b});
      if (n == 3) in.push_back(a);
    }
  }
  return in;
}

//! Random floats, the middle between every two neighbouring fp16 values, and floats around it.
words floats_to_round() {
  words in = random_words(1 << 20, 2);
  for (std::uint32_t h = 0; h < 0x7C00u; ++h) {
    float const middle = 0.5f * (half_value(h) + (h == 0x7BFFu ? 65536.0f : half_value(h + 1)));
    std::uint32_t const bits = std::bit_cast<std::uint32_t>(middle);
    for (std::uint32_t const x : {bits - 1, bits, bits + 1, bits | 0x80000000u})
      in.push_back(x);
  }
  for (std::uint32_t const x :
       {0u, 0x80000000u, 0x7F800000u, 0xFF800000u, 0x7FC00000u, 0xFFFFFFFFu, 1u, 0x7F7FFFFFu})
    in.push_back(x);
  return in;
}

//! Floats of every exponent and sign, dense around those that attention uses, and what is no number.
words floats_for_functions() {
  words in = random_words(1 << 20, 3);
  std::mt19937 random{4};
  std::uniform_real_distribution<float> near(-160.0f, 130.0f);
  for (int i = 0; i < 1 << 20; ++i)
    in.push_back(std::bit_cast<std::uint32_t>(near(random)));
  for (float const x : {0.0f,    -0.0f,     1.0f,      -1.0f,      0.5f,     INFINITY,   -INFINITY,
                        NAN,     0x1p-126f, 0x1p-149f, -0x1p-149f, 0x1p126f, 0x1p127f,   3.4e38f,
                        -126.0f, -126.5f,   -127.0f,   -150.0f,    127.0f,   127.99999f, 128.0f})
    in.push_back(std::bit_cast<std::uint32_t>(x));
  return in;
}

//! Kernels that start early and wait see what the ones before them wrote.
void check_dependencies() {
  int const n = 1000;
  std::uint32_t* data = nullptr;
  require(cudaMalloc(&data, n * 4), "cudaMalloc");
  require(cudaMemset(data, 0, n * 4), "cudaMemset");
  std::uint32_t expected = 0;
  for (int i = 0; i < 8; ++i) {
    require(device::launch<device::dependency::programmatic>(early_kernel, dim3(1), dim3(128), 0, nullptr,
                                                             data, n),
            "programmatic launch");
    expected = expected * 3u + 1u;
  }
  words got(static_cast<std::size_t>(n));
  require(cudaMemcpy(got.data(), data, n * 4, cudaMemcpyDeviceToHost), "programmatic launch");
  std::size_t wrong = 0;
  for (std::uint32_t const x : got)
    wrong += x == expected ? 0 : 1;
  report("wait_for_dependencies", got.size(), wrong, 0, 0, nullptr);
  require(cudaFree(data), "cudaFree");
}

int run() {
  words all_halves;
  for (std::uint32_t h = 0; h < 0x10000u; ++h)
    all_halves.push_back(h | (h * 40503u & 0xFFFFu) << 16);
  check_bits("multiply_half2", wrapper::multiply_half2, half_pairs());
  check_bits("subtract_half2", wrapper::subtract_half2, half_pairs());
  check_bits("min_half2", wrapper::min_half2, half_pairs());
  check_bits("max_half2", wrapper::max_half2, half_pairs());
  check_bits("fma_half2", wrapper::fma_half2, triples_of(half_pairs()));
  check_bits("multiply_saturated", wrapper::multiply_saturated, floats_near_one(2));
  check_bits("add_saturated", wrapper::add_saturated, floats_near_one(2));
  check_bits("fma_saturated", wrapper::fma_saturated, floats_near_one(3));
  check_bits("to_float", wrapper::to_float, all_halves);
  check_bits("from_float", wrapper::from_float, floats_to_round());
  check_bits("from_float_saturate", wrapper::from_float_saturate, floats_to_round());
  words halfway = random_words(1 << 20, 12);
  for (int i = -4096; i <= 4096; ++i) {
    std::uint32_t const bits = std::bit_cast<std::uint32_t>(static_cast<float>(i) + 0.5f);
    halfway.insert(halfway.end(), {bits - 1, bits, bits + 1});
  }
  check_bits("round_half_even", wrapper::round_half_even, halfway);
  check_bits("pack_half2", wrapper::pack_half2, floats_to_round());
  check_bits("low_half", wrapper::low_half, all_halves, true);
  check_bits("high_half", wrapper::high_half, all_halves, true);
  check_bits("half2_from_e4m3x2", wrapper::half2_from_e4m3x2, all_halves);
  words bytes = random_words(3 << 18, 5);
  for (std::size_t i = 2; i < bytes.size(); i += 3)
    bytes[i] &= 0x7777u;
  check_bits("permute_bytes", wrapper::permute_bytes, bytes);
  check_ulp("exp2_approximate", wrapper::exp2_approximate, floats_for_functions(), 2.0);
  check_ulp("reciprocal_approximate", wrapper::reciprocal_approximate, floats_for_functions(), 1.0);

  using engine = std::mt19937;
  auto const small = [](int limit) {
    return [limit](engine& r) {
      return half_of_integer(static_cast<int>(r() % static_cast<unsigned>(2 * limit + 1)) - limit);
    };
  };
  check_mma("mma, whole numbers",
            fragments(1000, small(64), small(64),
                      [](engine& r) { return static_cast<double>(r() % 4096u) - 2048.0; }),
            0.0);
  check_mma("multiply, whole numbers", fragments(1000, small(64), small(64), [](engine&) { return 1e9; }),
            0.0,
            wrapper::multiply);  // what c held is of no account
  check_mma("mma, masked code bits",
            fragments(
                1000, [](engine& r) { return static_cast<std::uint32_t>(r() & 0x7FFu); }, small(8),
                [](engine& r) { return std::ldexp(r() % 1024u, -24); }),
            0.0);
  auto const normal = [](engine& r) {
    return static_cast<std::uint32_t>((r() & 0x83FFu) | (8u + r() % 10u) << 10);
  };
  check_mma("mma, random",
            fragments(2000, normal, normal, [](engine& r) { return r() % 1000u * 1e-3 - 0.5; }), 0x1p-20);
  check_mma("multiply, random", fragments(2000, normal, normal, [](engine&) { return 0.0; }), 0x1p-20,
            wrapper::multiply);
  auto const finite = [](engine& r) {
    std::uint32_t const h = static_cast<std::uint32_t>(r() & 0xFFFFu);
    return (h & 0x7C00u) == 0x7C00u ? h & 0x83FFu : h;
  };
  check_mma("mma, any finite operand", fragments(2000, finite, finite, [](engine&) { return 0.0; }), 0x1p-20);

  check_bits("transpose_8x8", wrapper::transpose_8x8, random_words(32 * 500, 6));
  check_bits("shared loads and stores", wrapper::shared_memory, random_words(128 * 200, 7));
  // What may hang comes last.
  check_bits("load_global_128", wrapper::load_global_128, random_words(128 * 200, 11));
  check_dependencies();
  check_bits("copy_async_16", wrapper::copy_async, random_words(128 * 200, 10));
  check_bits("bulk_copy", wrapper::bulk_copy, random_words(128 * 200, 8));
  check_bits("async_proxy_fence", wrapper::proxy_fence, random_words(128 * 200, 9));
  std::printf("%s\n", failures == 0 ? "all wrappers agree" : "some wrappers differ");
  return failures == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

}  // namespace kvcrumb::conformance

int main() {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // what was said before a time limit ended this is kept
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no device\n");
    return 77;
  }
  return kvcrumb::conformance::run();
}
