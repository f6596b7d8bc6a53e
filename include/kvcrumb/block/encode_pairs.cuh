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
             std::same_as<typename Scheme::layout_type, fragment> && section::bits != 3 && grouped &&
             filled && Scheme::grouping_type::head_span(HeadDim) == 1 && (Which == side::key || !channelwise);
    }
  }();

  //! Shared memory for jobs of at most `tokens` rows.
  static constexpr int shared_bytes(int tokens) noexcept { return rows_offset(tokens) + row_bytes * tokens; }

  //! All threads of the block. Ends without a barrier: `shared` may be used again after one.
  template <class Rows>
  KVCRUMB_DEVICE static void run(Scheme const& scheme, section_job<Rows> job, std::byte* shared) {
    if (!Isolating || !job.isolated.any(job.head)) job.isolated.bits = nullptr;
    int const tokens = job.slots.end - job.slots.begin;
    bool const whole = tokens == TileTokens;
    if (job.slots.fresh && !whole) image::template clear<Threads>(shared);
    if (whole) {
      stage<true>(job, tokens, shared + rows_offset(tokens));
    } else {
      stage<false>(job, tokens, shared + rows_offset(tokens));
    }
    if constexpr (Isolating) {
      if (job.isolated.bits != nullptr) {
        __syncthreads();
        replace_isolated(job, tokens, shared + rows_offset(tokens));
      }
    }
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
  static constexpr int stride = pair_rows<section>::stride, row_bytes = 2 * stride, chunks = HeadDim / 8;

  // Shared memory: parameters as stored, factors [group][owner], rows.
  KVCRUMB_API static constexpr int owners(int tokens) noexcept {
    return channelwise ? HeadDim : tokens + tokens % 2;
  }
  KVCRUMB_API static constexpr int rows_offset(int tokens) noexcept {
    int const sets = channelwise ? tokens / group : groups;
    return section::param_bytes + static_cast<int>(sizeof(factors)) * sets * owners(tokens);
  }

  KVCRUMB_DEVICE static int thread() { return static_cast<int>(threadIdx.x); }

  //! Fits and sets the parameters of a group of n values; none: zeros. Slots before the job move them.
  KVCRUMB_DEVICE static void fit(codec_type const& codec, range_statistics const& s, int n, std::byte* shared,
                                 int tokens, int owner, int g, slot_range slots) {
    int const stored_owner = channelwise ? owner : slots.begin + owner;
    int const stored_group = channelwise ? slots.begin / group + g : g;
    factors f{};
    if constexpr (requires { codes::fit(s, f); }) {
      std::uint32_t const both = n > 0 ? codes::fit(s, f) : 0u;
      image::put_halves(shared, stored_owner, stored_group, both);
    } else {
      group_params const p = n > 0 ? codec.fit(s, n) : group_params{};
      image::put(shared, stored_owner, stored_group, p);
      f = codes::of(p);
    }
    reinterpret_cast<factors*>(shared + section::param_bytes)[g * owners(tokens) + owner] = f;
  }

  //! Rows to shared memory, eight channels at a time, several loads of a thread on their way together.
  template <bool Whole, class Rows>
  KVCRUMB_DEVICE static void stage(section_job<Rows> const& job, int tokens, std::byte* rows) {
    constexpr int step = Threads / chunks, together = Whole ? 8 : 4;
    int const first = thread() / chunks, column = thread() % chunks;
    if (Threads % chunks != 0 && first >= step) return;
    typename Rows::walk row(job.rows, job.head, first, step);
    std::byte* to = rows + first * row_bytes + 16 * column;
    KVCRUMB_KEEP_ROLLED
    for (int begin = 0; begin < (Whole ? TileTokens : tokens); begin += together * step) {
      warp::word_vector<4> part[together];
      auto const present = [&](int n) {
        return (Whole && TileTokens % (together * step) == 0) || begin + first + n * step < tokens;
      };
      KVCRUMB_UNROLL
      for (int n = 0; n < together; ++n) {
        auto const* const from = row.next();
        if (present(n)) part[n] = warp::load_eight(from + 8 * column);
      }
      KVCRUMB_UNROLL
      for (int n = 0; n < together; ++n) {
        if (present(n)) *reinterpret_cast<warp::word_vector<4>*>(to + n * step * row_bytes) = part[n];
      }
      to += together * step * row_bytes;
    }
  }

  //! Isolated rows take no part in ranges: they become another row of their group of tokens, or zeros where
  //! there is none and in groups of channels.
  template <class Rows>
  KVCRUMB_DEVICE static void replace_isolated(section_job<Rows> const& job, int tokens, std::byte* rows) {
    auto* const parts = reinterpret_cast<warp::word_vector<4>*>(rows);
    KVCRUMB_KEEP_ROLLED
    for (int item = thread(); item < tokens * chunks; item += Threads) {
      int const i = item / chunks, at = item % chunks;
      if (!job.isolated.test(job.head, i)) continue;
      int const end = channelwise ? i - i % group + group : 0;
      int source = channelwise ? end - group : 0;
      while (source < end && job.isolated.test(job.head, source))
        ++source;
      parts[i * (row_bytes / 16) + at] =
          source < end ? parts[source * (row_bytes / 16) + at] : warp::word_vector<4>{};
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
        fit(codec, range.of(h), kept, shared, tokens, 2 * pair + h, g, job.slots);
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
      int g = 0;
      if (groups > 1) g = tokens == TileTokens ? item / TileTokens : item / tokens;
      int const i = item - g * tokens;
      int const left = HeadDim - g * group, length = left < group ? left : group;
      auto const* const from =
          reinterpret_cast<warp::word_vector<4> const*>(rows + i * row_bytes) + g * (group / 8);
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
      fit(codec, range.joined(), isolated ? 0 : length, shared, tokens, i, g, job.slots);
    }
  }
};

}  // namespace kvcrumb::inline v0::block
