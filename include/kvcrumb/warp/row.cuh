// SPDX-License-Identifier: Apache-2.0
//! @file Rows that are spread over a warp for encoding: lane l holds `per_lane` consecutive channels, so that
//! butterflies over xor 1, 2, 4, ... follow the tree order of the host.
#pragma once

#include <bit>

#include "kvcrumb/numeric/storage_float.hpp"
#include "kvcrumb/ptx.cuh"
#include "kvcrumb/transform/hadamard.hpp"
#include "kvcrumb/transform/identity.hpp"
#include "kvcrumb/transform/mean_center.hpp"

namespace kvcrumb::inline v0::warp {

//! Words that are loaded and stored at once; aligned as a whole.
template <int N>
struct alignas(4 * N) word_vector {
  std::uint32_t word[N];
};

//! How a row is dealt to lanes. Where head_dim is no power of two, the last lanes have nothing.
template <int HeadDim>
struct row_lanes {
  static constexpr int per_lane = static_cast<int>(std::bit_ceil(static_cast<unsigned>((HeadDim + 31) / 32)));
  static constexpr int active = HeadDim / per_lane;
  static constexpr int words = per_lane / 2;  //!< of two fp16 values
  static_assert(HeadDim % per_lane == 0 && per_lane % 2 == 0);
};

//! The channels of one lane as fp16, two in a word.
template <int HeadDim>
struct half_row {
  std::uint32_t word[row_lanes<HeadDim>::words];

  KVCRUMB_DEVICE float value(int i) const {
    return to_float(float16{static_cast<std::uint16_t>(word[i / 2] >> (16 * (i % 2)))});
  }
  //! The same by one instruction, but every NaN is some NaN.
  KVCRUMB_DEVICE float value_or_nan(int i) const {
    return i % 2 != 0 ? ptx::high_half(word[i / 2]) : ptx::low_half(word[i / 2]);
  }
};

//! What a 16-bit or 32-bit input element is in the cache: fp16, rounded to nearest even and saturated.
template <class Input>
KVCRUMB_DEVICE std::uint32_t row_bits(std::uint32_t stored) {
  return from_float_saturate<float16>(to_float(stored_from_bits<Input>(stored))).bits;
}

//! Reads a row, rounded to fp16; the row is aligned to 16 bytes. Lanes beyond the row get zeros.
template <int HeadDim, class Input>
KVCRUMB_DEVICE half_row<HeadDim> load_row(Input const* row, int lane) {
  using lanes = row_lanes<HeadDim>;
  half_row<HeadDim> r{};
  if (lane >= lanes::active) return r;
  constexpr int bytes = lanes::per_lane * static_cast<int>(sizeof(Input));
  constexpr int words = bytes / 4 < 4 ? bytes / 4 : 4;
  auto const* from = reinterpret_cast<word_vector<words> const*>(row + lane * lanes::per_lane);
  KVCRUMB_UNROLL
  for (int v = 0; v < bytes / (4 * words); ++v) {
    word_vector<words> const x = from[v];
    KVCRUMB_UNROLL
    for (int i = 0; i < words; ++i) {
      int const at = v * words + i;
      if constexpr (std::same_as<Input, float16>) {
        r.word[at] = x.word[i];
      } else if constexpr (sizeof(Input) == 2) {
        r.word[at] = row_bits<Input>(x.word[i] & 0xFFFFu) | row_bits<Input>(x.word[i] >> 16) << 16;
      } else {
        r.word[at / 2] |= row_bits<Input>(x.word[i]) << (16 * (at % 2));
      }
    }
  }
  return r;
}

//! Eight neighbouring channels of a row, rounded to fp16; they are aligned as a whole, up to 16 bytes.
template <class Input>
KVCRUMB_DEVICE word_vector<4> load_eight(Input const* from) {
  auto const* const words = reinterpret_cast<word_vector<4> const*>(from);
  if constexpr (std::same_as<Input, float16>) {
    return *words;
  } else {
    word_vector<4> r{};
    KVCRUMB_UNROLL
    for (int v = 0; v < static_cast<int>(sizeof(Input)) / 2; ++v) {
      word_vector<4> const x = words[v];
      KVCRUMB_UNROLL
      for (int i = 0; i < 4; ++i) {
        if constexpr (sizeof(Input) == 2) {
          r.word[i] = row_bits<Input>(x.word[i] & 0xFFFFu) | row_bits<Input>(x.word[i] >> 16) << 16;
        } else {
          r.word[2 * v + i / 2] |= row_bits<Input>(x.word[i]) << (16 * (i % 2));
        }
      }
    }
    return r;
  }
}

//! Writes a row of fp16 values, aligned to 16 bytes.
template <int HeadDim>
KVCRUMB_DEVICE void store_row(float16* row, half_row<HeadDim> const& x, int lane) {
  using lanes = row_lanes<HeadDim>;
  if (lane >= lanes::active) return;
  word_vector<lanes::words> out;
  KVCRUMB_UNROLL
  for (int i = 0; i < lanes::words; ++i)
    out.word[i] = x.word[i];
  *reinterpret_cast<word_vector<lanes::words>*>(row + lane * lanes::per_lane) = out;
}

//! Whether block `of` lanes that begins at this lane's holds any channel.
template <int HeadDim>
KVCRUMB_DEVICE constexpr bool block_present(int lane, int of) {
  return row_lanes<HeadDim>::active == 32 || (lane & ~(of - 1)) < row_lanes<HeadDim>::active;
}

//! Merges the nodes of `Lanes` neighbouring lanes in tree order; all of them get the result. `exchange(node,
//! n)` gives the node of lane ^ n. Missing lanes are absent.
template <int HeadDim, int Lanes, class Node, class Merge, class Exchange>
KVCRUMB_DEVICE Node fold_lanes(Node node, int lane, Merge merge, Exchange exchange) {
  KVCRUMB_UNROLL
  for (int n = 1; n < Lanes; n *= 2) {
    Node const other = exchange(node, n);
    if (!block_present<HeadDim>(lane ^ n, n)) continue;
    if (!block_present<HeadDim>(lane, n)) {
      node = other;
    } else {
      node = (lane & n) != 0 ? merge(other, node) : merge(node, other);
    }
  }
  return node;
}

//! Merges neighbours node[i .. i + Size) within a lane, Size a power of two; the results are node[0],
//! node[Size], ...
template <int Size, int N, class Node, class Merge>
KVCRUMB_DEVICE void fold_within(Node (&node)[N], Merge merge) {
  KVCRUMB_UNROLL
  for (int step = 1; step < Size; step *= 2) {
    KVCRUMB_UNROLL
    for (int i = 0; i < N; i += 2 * step)
      node[i] = merge(node[i], node[i + step]);
  }
}

// ---- transforms

//! Transforms that encode kernels know.
template <class Transform>
inline constexpr bool can_forward = false;
template <>
inline constexpr bool can_forward<identity> = true;
template <int Block>
inline constexpr bool can_forward<hadamard<Block>> = true;
template <class Next>
inline constexpr bool can_forward<centered<Next>> = can_forward<Next>;

template <int Power>
inline constexpr int log2_of = std::bit_width(static_cast<unsigned>(Power)) - 1;

//! transform::forward of a row of kv head `head`, to the same bits.
template <int HeadDim>
KVCRUMB_DEVICE void forward(identity, int, float (&)[row_lanes<HeadDim>::per_lane], int) {}
template <int HeadDim, int Block>
KVCRUMB_DEVICE void forward(hadamard<Block>, int, float (&x)[row_lanes<HeadDim>::per_lane], int lane) {
  constexpr int per_lane = row_lanes<HeadDim>::per_lane, width = hadamard<Block>::block(HeadDim);
  constexpr int log2 = log2_of<width>;
  KVCRUMB_UNROLL
  for (int h = 1; h < width && h < per_lane; h *= 2) {
    KVCRUMB_UNROLL
    for (int i = 0; i < per_lane; ++i) {
      if ((i & h) != 0) continue;
      float const a = x[i], b = x[i + h];
      x[i] = add_rn(a, b);
      x[i + h] = sub_rn(a, b);
    }
  }
  KVCRUMB_UNROLL
  for (int h = per_lane; h < width; h *= 2) {
    int const n = h / per_lane;
    KVCRUMB_UNROLL
    for (int i = 0; i < per_lane; ++i) {
      float const other = __shfl_xor_sync(~0u, x[i], n);
      x[i] = (lane & n) != 0 ? sub_rn(other, x[i]) : add_rn(x[i], other);
    }
  }
  float const root = (log2 & 1) != 0 ? 0.70710678118654752f : 1.0f;
  float const scale = mul_rn(root, 1.0f / static_cast<float>(1 << (log2 / 2)));
  KVCRUMB_UNROLL
  for (int i = 0; i < per_lane; ++i)
    x[i] = mul_rn(x[i], scale);
}
template <int HeadDim, class Next>
KVCRUMB_DEVICE void forward(centered<Next> const& t, int head, float (&x)[row_lanes<HeadDim>::per_lane],
                            int lane) {
  using lanes = row_lanes<HeadDim>;
  if (t.means != nullptr && lane < lanes::active) {
    float const* m = t.means + static_cast<std::int64_t>(head) * HeadDim + lane * lanes::per_lane;
    KVCRUMB_UNROLL
    for (int i = 0; i < lanes::per_lane; ++i)
      x[i] = sub_rn(x[i], m[i]);
  }
  forward<HeadDim>(t.next, head, x, lane);
}

}  // namespace kvcrumb::inline v0::warp
