// SPDX-License-Identifier: Apache-2.0
//! @file Products of matrices of bytes in the AMX registers. Included once by targets.hpp. In assembly:
//! intrinsics are macros that want literals for registers, and need a target of their own.

//! Shapes of the registers for A of `rows` rows: C in 0 to 3, A in 4 and 5, B in 6 and 7.
inline void configure_amx(int rows) noexcept {
  struct alignas(64) {
    std::uint8_t palette = 1, start = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};
  } shapes;
  for (int i = 0; i < 8; ++i) {
    shapes.row_bytes[i] = 64;
    shapes.rows[i] = static_cast<std::uint8_t>(i < 6 ? rows : 16);
  }
  __asm__ volatile("ldtilecfg %0" : : "m"(shapes));  // the intrinsic of g++ 12 names 8 bytes of them only
}

//! Gives the registers back, so that the operating system need not save them.
inline void release_amx() noexcept { __asm__ volatile("tilerelease"); }

template <int To>
KVCRUMB_TARGET_INLINE void load_amx(std::byte const* block) noexcept {
  __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" : : "r"(block), "r"(std::int64_t{64}), "i"(To) : "memory");
}
template <int From>
KVCRUMB_TARGET_INLINE void store_amx(std::int32_t* block) noexcept {
  __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                   :
                   : "r"(block), "r"(std::int64_t{64}), "i"(From)
                   : "memory");
}
template <int C, int A, int B>
KVCRUMB_TARGET_INLINE void multiply_add_amx() noexcept {
  __asm__ volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" : : "i"(C), "i"(A), "i"(B));
}
template <int C, bool Load>
KVCRUMB_TARGET_INLINE void product_amx(matrix_batch const& m, int i) noexcept {
  __asm__ volatile("tilezero %%tmm%c0" : : "i"(C));
  std::byte const *a = m.a[i], *b = m.b[i];
  for (int q = 0; q < m.depth; q += 2) {
    if constexpr (Load) load_amx<4>(a);
    load_amx<6>(b);
    multiply_add_amx<C, 4, 6>();
    if (q + 1 == m.depth) break;
    if constexpr (Load) load_amx<5>(a + matrix_batch::block_bytes);
    load_amx<7>(b + matrix_batch::block_bytes);
    multiply_add_amx<C, 5, 7>();
    a += 2 * matrix_batch::block_bytes;
    b += 2 * matrix_batch::block_bytes;
  }
}

//! The products of a batch, after configure_amx; they stay in the registers.
inline void multiply_amx(matrix_batch const& m) noexcept {
  product_amx<0, true>(m, 0);
  if (m.depth <= 2 && m.count == 4 && m.a[0] == m.a[1] && m.a[1] == m.a[2] && m.a[2] == m.a[3]) {
    product_amx<1, false>(m, 1);
    product_amx<2, false>(m, 2);
    product_amx<3, false>(m, 3);
    return;
  }
  if (m.count > 1) product_amx<1, true>(m, 1);
  if (m.count > 2) product_amx<2, true>(m, 2);
  if (m.count > 3) product_amx<3, true>(m, 3);
}
//! Stores `count` products. Best long after they were begun: until they are there the stores take up the
//! processor's queues.
inline void store_products_amx(std::int32_t* c, int count) noexcept {
  store_amx<0>(c);
  if (count > 1) store_amx<1>(c + matrix_batch::sums);
  if (count > 2) store_amx<2>(c + 2 * matrix_batch::sums);
  if (count > 3) store_amx<3>(c + 3 * matrix_batch::sums);
}
