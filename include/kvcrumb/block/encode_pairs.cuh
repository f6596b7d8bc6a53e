// SPDX-License-Identifier: Apache-2.0
//! @file One side of one tile of an affine codec, encoded by a block from fp16 rows two channels at a time.
#pragma once

#include "kvcrumb/block/encode_job.cuh"
#include "kvcrumb/block/encode_pair_words.cuh"
#include "kvcrumb/scheme/composed.hpp"
#include "kvcrumb/warp/tree.cuh"

namespace kvcrumb::inline v0::block {

//! What section_encoder does where the codec needs the range of its groups only and rows are not transformed.
//! Rows are brought to shared memory once; ranges and codes are computed from there.
template <class Scheme, side Which, int HeadDim, int TileTokens, bool Isolating, int Threads>
class pair_section {
 public:
  using section = encoded_section<Scheme, Which, HeadDim, TileTokens>;
  using codec_type = typename Scheme::codec_type;
  using codes = warp::pair_codes<codec_type>;
  using image = param_image<section, typename Scheme::param_type>;
  static constexpr bool channelwise = section::spec.per_channel;
  static constexpr int group = section::spec.group, groups = section::spec.groups();

  //! Whether this class can encode the section. A mean of the rows that are not isolated must be an fp16
  //! value to take the place of an isolated one, which it is in fp16 arithmetic.
  static constexpr bool applies = [] {
    if constexpr (!warp::pair_codes_of<codec_type>::from_ranges) {
      return false;
    } else {
      bool const grouped = group % 16 == 0 && (groups == 1 || (group & (group - 1)) == 0);
      bool const filled = !Isolating || !channelwise || codec_type::options.precision == arithmetic::binary16;
      return std::same_as<typename Scheme::transform_type, identity> &&
          std::same_as<typename Scheme::layout_type, fragment> && section::bits != 3 && grouped && filled &&
          Scheme::grouping_type::head_span(HeadDim) == 1 && (Which == side::key || !channelwise);
    }
  }();

  //! Shared memory for jobs of at most `tokens` rows.
  static constexpr int shared_bytes(int tokens) noexcept { return rows_offset(tokens) + row_bytes * tokens; }

  //! All threads of the block. Ends without a barrier: `shared` may be used again after one.
  template <class Rows>
  KVCRUMB_DEVICE static void run(Scheme const& scheme, section_job<Rows> const& job, std::byte* shared) {
    int const tokens = job.slots.end - job.slots.begin;
    bool const whole = tokens == TileTokens;
    if (job.slots.fresh && !whole) image::template clear<Threads>(shared);
    stage(job, tokens, shared + rows_offset(tokens));
    __syncthreads();
    if constexpr (channelwise) {
      fit_channels(scheme.codec, job, tokens, shared);
      if constexpr (Isolating) {
        if (job.isolated.bits != nullptr) fill_isolated(job, tokens, shared);
      }
    } else {
      fit_tokens(scheme.codec, job, tokens, shared);
    }
    __syncthreads();
    pair_rows<section> const from{scheme.codec, shared + rows_offset(tokens), shared + section::param_bytes,
                                  owners(tokens)};
    auto const store = [&]<bool Whole>() {
      if constexpr (Which == side::key) {
        store_key_pairs<section, Threads, Whole>(job.section, job.slots, from);
      } else {
        store_value_pairs<section, Threads, Whole>(job.section, job.slots, from);
      }
    };
    if (whole) {
      store.template operator()<true>();
    } else {
      store.template operator()<false>();
    }
    image::template store<Threads>(job.section, job.slots, shared);
  }

 private:
  using factors = typename codes::factors;
  static constexpr int stride = pair_rows<section>::stride, row_bytes = 2 * stride;

  // Shared memory: parameters as stored, factors [group][owner], rows.
  KVCRUMB_API static constexpr int owners(int tokens) noexcept {
    return channelwise ? HeadDim : tokens + tokens % 2;
  }
  KVCRUMB_API static constexpr int rows_offset(int tokens) noexcept {
    int const sets = channelwise ? tokens / group : groups;
    return section::param_bytes + static_cast<int>(sizeof(factors)) * sets * owners(tokens);
  }
  KVCRUMB_DEVICE static int thread() { return static_cast<int>(threadIdx.x); }

  //! Sets the parameters of a group.
  KVCRUMB_DEVICE static void put(std::byte* shared, int tokens, int owner, int g, int image_owner,
                                 int image_group, group_params const& p) {
    image::put(shared, image_owner, image_group, p);
    reinterpret_cast<factors*>(shared + section::param_bytes)[g * owners(tokens) + owner] = codes::of(p);
  }

  //! The row that takes the place of row i while ranges are computed: itself, or if it is isolated another
  //! one of its group; -1: none.
  template <class Rows>
  KVCRUMB_DEVICE static int source_of(section_job<Rows> const& job, int i) {
    if (!job.isolated.test(job.head, i)) return i;
    if constexpr (channelwise) {
      int const first = i - i % group;
      for (int j = first; j < first + group; ++j) {
        if (!job.isolated.test(job.head, j)) return j;
      }
    }
    return -1;
  }

  //! Rows to shared memory, eight channels at a time, four loads of a thread on their way together.
  template <class Rows>
  KVCRUMB_DEVICE static void stage(section_job<Rows> const& job, int tokens, std::byte* rows) {
    constexpr int chunks = HeadDim / 8, together = 4;
    for (int first = thread(); first < tokens * chunks; first += together * Threads) {
      warp::word_vector<4> part[together];
      KVCRUMB_UNROLL
      for (int n = 0; n < together; ++n) {
        int const at = first + n * Threads;
        part[n] = {};
        if (at >= tokens * chunks) continue;
        int const i = Isolating ? source_of(job, at / chunks) : at / chunks;
        if (i >= 0) part[n] = warp::load_eight(job.rows.row(job.head, i) + at % chunks * 8);
      }
      KVCRUMB_UNROLL
      for (int n = 0; n < together; ++n) {
        int const at = first + n * Threads;
        if (at < tokens * chunks)
          *reinterpret_cast<warp::word_vector<4>*>(rows + at / chunks * row_bytes + at % chunks * 16) = part[n];
      }
    }
  }

  // ---- groups of tokens

  template <class Rows>
  KVCRUMB_DEVICE static int kept_in(section_job<Rows> const& job, int g) {
    if (!Isolating || job.isolated.bits == nullptr) return group;
    int kept = 0;
    for (int i = 0; i < group; ++i)
      kept += job.isolated.test(job.head, g * group + i) ? 0 : 1;
    return kept;
  }

  //! Lanes of a warp share the rows of long groups: `split` of them have every eighth-th part of 8 rows of a
  //! pair of channels.
  template <class Rows>
  KVCRUMB_DEVICE static void fit_channels(codec_type const& codec, section_job<Rows> const& job, int tokens,
                                          std::byte* shared) {
    constexpr int split = group >= 128 ? 4 : group >= 64 ? 2 : 1, pairs = 32 / split, rows = 8 / split;
    constexpr int parts = (HeadDim / 2 + pairs - 1) / pairs;
    auto const* const words = reinterpret_cast<std::uint32_t const*>(shared + rows_offset(tokens));
    int const lane = thread() % 32, part = lane / pairs;
    for (int task = thread() / 32; task < tokens / group * parts; task += Threads / 32) {
      int const g = task / parts, pair = task % parts * pairs + lane % pairs;
      bool const present = HeadDim / 2 % pairs == 0 || pair < HeadDim / 2;
      warp::half_range range;
      KVCRUMB_UNROLL
      for (int i = 0; i < group; i += 8) {
        KVCRUMB_UNROLL
        for (int j = 0; j < rows; ++j) {
          if (present) range.add(words[(g * group + i + part * rows + j) * (stride / 2) + pair]);
        }
      }
      KVCRUMB_UNROLL
      for (int n = pairs; n < 32; n *= 2)
        range.add({__shfl_xor_sync(~0u, range.low, n), __shfl_xor_sync(~0u, range.high, n)});
      if (!present || part > 1) continue;
      int const kept = kept_in(job, g);
      KVCRUMB_UNROLL
      for (int h = 0; h < 2; ++h) {
        if (split > 1 && h != part) continue;
        group_params const p = kept > 0 ? codec.fit(range.of(h), kept) : group_params{};
        put(shared, tokens, 2 * pair + h, g, 2 * pair + h, job.slots.begin / group + g, p);
      }
    }
  }

  //! Isolated rows become the mean of the others of their group, as fp16 arithmetic reads it.
  template <class Rows>
  KVCRUMB_DEVICE static void fill_isolated(section_job<Rows> const& job, int tokens, std::byte* shared) {
    auto* const halves = reinterpret_cast<std::uint16_t*>(shared + rows_offset(tokens));
    auto const isolated = [&](int i) { return job.isolated.test(job.head, i); };
    auto const add = [](float a, float b) { return add_rn(a, b); };
    __syncthreads();  // the rows in their place have been read
    for (int item = thread(); item < tokens / group * HeadDim; item += Threads) {
      int const g = item / HeadDim, channel = item % HeadDim, kept = kept_in(job, g);
      if (kept == group || kept == 0) continue;
      warp::tree_accumulator<float, 8> sum;
      for (int i = g * group; i < (g + 1) * group; ++i) {
        if (!isolated(i)) sum.add(ptx::low_half(halves[i * stride + channel]), add);
      }
      float const mean = div_rn(sum.total(add), static_cast<float>(kept));
      for (int i = g * group; i < (g + 1) * group; ++i) {
        if (isolated(i)) halves[i * stride + channel] = from_float_saturate<float16>(mean).bits;
      }
    }
  }

  // ---- groups of channels

  //! A thread has a group of a row. Isolated rows have zero parameters.
  template <class Rows>
  KVCRUMB_DEVICE static void fit_tokens(codec_type const& codec, section_job<Rows> const& job, int tokens,
                                        std::byte* shared) {
    std::byte const* const rows = shared + rows_offset(tokens);
    for (int item = thread(); item < tokens * groups; item += Threads) {
      int const g = groups == 1 ? 0 : item / tokens, i = groups == 1 ? item : item % tokens;
      int const left = HeadDim - g * group, length = left < group ? left : group;
      auto const* const from = reinterpret_cast<warp::word_vector<4> const*>(rows + i * row_bytes) + g * (group / 8);
      warp::half_range range;
      KVCRUMB_UNROLL
      for (int n = 0; n < group / 8; ++n) {
        if (HeadDim % group != 0 && 8 * n >= length) continue;
        warp::word_vector<4> const eight = from[n];
        KVCRUMB_UNROLL
        for (int w = 0; w < 4; ++w)
          range.add(eight.word[w]);
      }
      bool const isolated = Isolating && job.isolated.test(job.head, i);
      group_params const p = isolated ? group_params{} : codec.fit(range.joined(), length);
      put(shared, tokens, i, g, job.slots.begin + i, g, p);
    }
  }
};

}  // namespace kvcrumb::inline v0::block
