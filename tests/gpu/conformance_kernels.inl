// SPDX-License-Identifier: Apache-2.0
//! @file The kernels of the conformance test, in terms of ptx.cuh alone. Both halves include it inside an
//! unnamed namespace of their own, so that each compiles its own instructions.

KVCRUMB_DEVICE std::uint32_t word_of(float x) { return __builtin_bit_cast(std::uint32_t, x); }
KVCRUMB_DEVICE float float_of(std::uint32_t x) { return __builtin_bit_cast(float, x); }
//! Of a limited result; the sign of a zero is not part of its meaning.
KVCRUMB_DEVICE std::uint32_t magnitude(float x) { return word_of(x) & 0x7FFFFFFFu; }

//! One item of an elementwise wrapper.
KVCRUMB_DEVICE std::uint32_t apply(wrapper w, std::uint32_t const* in) {
  switch (w) {
    case wrapper::to_float: return word_of(to_float(float16{static_cast<std::uint16_t>(in[0])}));
    case wrapper::from_float: return from_float<float16>(float_of(in[0])).bits;
    case wrapper::from_float_saturate: return from_float_saturate<float16>(float_of(in[0])).bits;
    case wrapper::round_half_even: return word_of(round_half_even(float_of(in[0])));
    case wrapper::multiply_half2: return ptx::multiply_half2(in[0], in[1]);
    case wrapper::subtract_half2: return ptx::subtract_half2(in[0], in[1]);
    case wrapper::fma_half2: return ptx::fma_half2(in[0], in[1], in[2]);
    case wrapper::min_half2: return ptx::min_half2(in[0], in[1]);
    case wrapper::max_half2: return ptx::max_half2(in[0], in[1]);
    case wrapper::multiply_saturated: return magnitude(ptx::multiply_saturated(float_of(in[0]), float_of(in[1])));
    case wrapper::add_saturated: return magnitude(ptx::add_saturated(float_of(in[0]), float_of(in[1])));
    case wrapper::fma_saturated:
      return magnitude(ptx::fma_saturated(float_of(in[0]), float_of(in[1]), float_of(in[2])));
    case wrapper::pack_half2: return ptx::pack_half2(float_of(in[0]), float_of(in[1]));
    case wrapper::low_half: return word_of(ptx::low_half(in[0]));
    case wrapper::high_half: return word_of(ptx::high_half(in[0]));
    case wrapper::half2_from_e4m3x2: return ptx::half2_from_e4m3x2(in[0]);
    case wrapper::exp2_approximate: return word_of(ptx::exp2_approximate(float_of(in[0])));
    case wrapper::reciprocal_approximate: return word_of(ptx::reciprocal_approximate(float_of(in[0])));
    case wrapper::permute_bytes: return ptx::permute_bytes(in[0], in[1], in[2]);
    default: return 0;
  }
}

//! One warp; in and out as [item][lane][word].
__global__ void mma_kernel(std::uint32_t const* in, std::uint32_t* out, int items, bool accumulate) {
  int const lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < items; ++i) {
    std::uint32_t const* const x = in + 10 * (32 * i + lane);
    float c[4] = {float_of(x[6]), float_of(x[7]), float_of(x[8]), float_of(x[9])};
    if (accumulate) {
      ptx::mma(c, x[0], x[1], x[2], x[3], x[4], x[5]);
    } else {
      ptx::multiply(c, x[0], x[1], x[2], x[3], x[4], x[5]);
    }
    for (int j = 0; j < 4; ++j)
      out[4 * (32 * i + lane) + j] = word_of(c[j]);
  }
}

__global__ void transpose_kernel(std::uint32_t const* in, std::uint32_t* out, int items) {
  int const lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < items; ++i)
    out[32 * i + lane] = ptx::transpose_8x8(in[32 * i + lane]);
}

struct shared_words {
  std::uint32_t word[2][128];
  std::uint64_t barrier[2];
};

//! Words stored 32 and 16 bits at a time are read 32, 64 and 128 bits at a time, by another lane.
__global__ void shared_kernel(std::uint32_t const* in, std::uint32_t* out, int items) {
  KVCRUMB_SHARED(shared_words, s);
  int const lane = static_cast<int>(threadIdx.x), other = lane ^ 5;
  std::uint32_t const a = ptx::shared_address(s.word[0]);
  for (int i = 0; i < items; ++i) {
    std::uint32_t const* const x = in + 4 * (32 * i + lane);
    std::uint32_t* const y = out + 12 * (32 * i + lane);
    std::uint32_t const mine = a + static_cast<std::uint32_t>(16 * lane);
    for (std::uint32_t j = 0; j < 3; ++j)
      ptx::store_shared_32(mine + 4 * j, x[j]);
    ptx::store_shared_16(mine + 12, static_cast<std::uint16_t>(x[3] & 0xFFFFu));
    ptx::store_shared_16(mine + 14, static_cast<std::uint16_t>(x[3] >> 16));
    __syncwarp();
    std::uint32_t const theirs = a + static_cast<std::uint32_t>(16 * other);
    std::uint32_t four[4], two[2];
    ptx::load_shared_128(four, theirs);
    for (int j = 0; j < 4; ++j)
      y[j] = four[j];
    for (std::uint32_t j = 0; j < 2; ++j) {
      ptx::load_shared_64(two, theirs + 8 * j);
      y[4 + 2 * j] = two[0];
      y[5 + 2 * j] = two[1];
    }
    for (std::uint32_t j = 0; j < 4; ++j)
      y[8 + j] = ptx::load_shared_32(theirs + 4 * j);
    y[8] ^= ptx::shared_address(&s.word[0][4 * lane]) - mine;  // 0
    __syncwarp();
  }
}

KVCRUMB_DEVICE void store_four(std::uint32_t* out, std::uint32_t address) {
  std::uint32_t r[4];
  ptx::load_shared_128(r, address);
  for (int j = 0; j < 4; ++j)
    out[j] = r[j];
}

//! 512 bytes an item by one bulk copy, two in flight; every barrier goes through many phases. With `dirty`
//! the warp writes the destination itself before, so that the copies need the proxy fence.
__global__ void bulk_kernel(std::uint32_t const* in, std::uint32_t* out, int items, bool dirty) {
  KVCRUMB_SHARED(shared_words, s);
  int const lane = static_cast<int>(threadIdx.x);
  std::uint32_t const barriers = ptx::shared_address(s.barrier), data = ptx::shared_address(s.word[0]);
  if (lane < 2) {
    ptx::barrier_init(barriers + static_cast<std::uint32_t>(8 * lane), 1);
    ptx::barrier_init_fence();
  }
  __syncthreads();
  auto const issue = [&](int item) {
    std::uint32_t const slot = static_cast<std::uint32_t>(item & 1);
    if (dirty) {
      for (std::uint32_t j = 0; j < 4; ++j)
        ptx::store_shared_32(data + 512 * slot + static_cast<std::uint32_t>(16 * lane) + 4 * j, 0xDEADBEEFu);
      ptx::async_proxy_fence();
      __syncwarp();
    }
    if (ptx::elect_one()) {
      ptx::barrier_expect(barriers + 8 * slot, 512);
      ptx::bulk_copy(data + 512 * slot, in + 128 * item, 512, barriers + 8 * slot);
    }
  };
  for (int i = 0; i < 2 && i < items; ++i)
    issue(i);
  for (int i = 0; i < items; ++i) {
    std::uint32_t const slot = static_cast<std::uint32_t>(i & 1);
    ptx::barrier_wait(barriers + 8 * slot, static_cast<std::uint32_t>(i >> 1 & 1));
    store_four(out + 4 * (32 * i + lane), data + 512 * slot + static_cast<std::uint32_t>(16 * lane));
    __syncwarp();
    if (i + 2 < items) issue(i + 2);
  }
}

//! The same with 16 bytes a lane, as on targets without the bulk copy.
__global__ void async_kernel(std::uint32_t const* in, std::uint32_t* out, int items) {
  KVCRUMB_SHARED(shared_words, s);
  int const lane = static_cast<int>(threadIdx.x), other = lane ^ 9;
  std::uint32_t const barriers = ptx::shared_address(s.barrier), data = ptx::shared_address(s.word[0]);
  if (lane < 2) {
    ptx::barrier_init(barriers + static_cast<std::uint32_t>(8 * lane), 32);
    ptx::barrier_init_fence();
  }
  __syncthreads();
  auto const issue = [&](int item) {
    std::uint32_t const slot = static_cast<std::uint32_t>(item & 1);
    ptx::copy_async_16(data + 512 * slot + static_cast<std::uint32_t>(16 * lane), in + 128 * item + 4 * lane);
    ptx::copy_async_arrive(barriers + 8 * slot);
  };
  for (int i = 0; i < 2 && i < items; ++i)
    issue(i);
  for (int i = 0; i < items; ++i) {
    std::uint32_t const slot = static_cast<std::uint32_t>(i & 1);
    ptx::barrier_wait(barriers + 8 * slot, static_cast<std::uint32_t>(i >> 1 & 1));
    store_four(out + 4 * (32 * i + other), data + 512 * slot + static_cast<std::uint32_t>(16 * other));
    __syncwarp();
    if (i + 2 < items) issue(i + 2);
  }
}

__global__ void global_kernel(std::uint32_t const* in, std::uint32_t* out, int items) {
  int const lane = static_cast<int>(threadIdx.x);
  for (int i = 0; i < items; ++i) {
    std::uint32_t r[4];
    ptx::load_global_128(r, in + 4 * (32 * i + lane));
    for (int j = 0; j < 4; ++j)
      out[4 * (32 * i + lane) + j] = r[j];
  }
}
