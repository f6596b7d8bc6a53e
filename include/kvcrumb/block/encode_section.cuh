// SPDX-License-Identifier: Apache-2.0
//! @file One side of one tile, encoded by a block: rows to statistics, parameters, codes, words.
#pragma once

#include "kvcrumb/block/encode_pairs.cuh"
#include "kvcrumb/warp/statistics.cuh"

namespace kvcrumb::inline v0::block {

//! Most dynamic shared memory that a block of an encode kernel asks for; sm_90 has 227 KiB, other targets
//! less.
inline constexpr int max_encode_shared = 224 << 10;

//! Encodes one section with `Threads` threads; the bytes are those of composed::encode. Isolating: jobs may
//! have flags. Groups of tokens lie wholly in a job.
template <class Scheme, side Which, int HeadDim, int TileTokens, bool Isolating, int Threads>
class section_encoder {
 public:
  using section = encoded_section<Scheme, Which, HeadDim, TileTokens>;
  using codec_type = typename Scheme::codec_type;
  using grouping = typename Scheme::grouping_type;
  using param_type = typename Scheme::param_type;
  using statistics = typename codec_type::statistics;
  using image = param_image<section, param_type>;

  //! Ok if this kernel can encode the section, or why not.
  static constexpr status supported() noexcept {
    if (!std::same_as<typename Scheme::layout_type, fragment>) return status::bad_bits;
    if (status const s = fragment::supports(section::spec); s != status::ok) return s;
    if (!warp::can_forward<typename Scheme::transform_type> || !warp::can_exchange<statistics>)
      return status::unknown_scheme;
    if (TileTokens % Scheme::append_tokens != 0) return status::bad_tile_tokens;
    if (!channelwise && !groups::supported) return status::bad_group;
    if (head_span > 1 && !warp::order_free<codec_type> && (HeadDim & (HeadDim - 1)) != 0)
      return status::bad_group;
    return shared_bytes(TileTokens) <= max_encode_shared ? status::ok : status::bad_group;
  }
  //! Shared memory for jobs of at most `tokens` rows.
  static constexpr int shared_bytes(int tokens) noexcept {
    if constexpr (pairs::applies) return pairs::shared_bytes(tokens);
    return rows_offset(tokens) + (channelwise ? staged_bytes : code_row * code_size) * tokens;
  }

  //! All threads of the block. Ends without a barrier: `shared` may be used again after one.
  template <class Rows>
  KVCRUMB_DEVICE static void run(Scheme const& scheme, section_job<Rows> const& job, std::byte* shared) {
    if constexpr (pairs::applies) return pairs::run(scheme, job, shared);
    int const tokens = job.slots.end - job.slots.begin;
    if (job.slots.fresh) {
      image::template clear<Threads>(shared);
      __syncthreads();
    }
    if constexpr (channelwise) {
      stage_rows(scheme, job, tokens, shared);
      __syncthreads();
      int const groups_here = tokens / group;
      for (int item = thread(); item < groups_here * HeadDim; item += Threads)
        fit_channel(scheme.codec, job, item / HeadDim, item % HeadDim, tokens, shared);
      __syncthreads();
      store_codes<section, Threads>(job.section, job.slots,
                                    channel_codes<Rows>{scheme.codec, job, tokens, shared});
    } else {
      for (int i = warp(); i < tokens; i += Threads / 32)
        encode_row(scheme, job, i, tokens, shared);
      __syncthreads();
      store_codes<section, Threads>(job.section, job.slots,
                                    staged_codes<code_size, code_row>{shared + rows_offset(tokens)});
    }
    image::template store<Threads>(job.section, job.slots, shared);
  }

  //! Makes slots as never written: zero bits, zero parameters. All threads; for row-independent schemes.
  KVCRUMB_DEVICE static void clear(std::byte* to, slot_range slots) {
    store_codes<section, Threads>(to, slots, zero_codes{});
    image::template store_zeros<Threads>(to, slots);
  }

 private:
  static constexpr bool channelwise = grouping::channelwise;
  static constexpr int group = section::spec.group, planes = section::spec.planes;
  static constexpr int head_span = grouping::head_span(HeadDim);
  static constexpr bool has_work = warp::reads_work<codec_type>;
  using pairs = pair_section<Scheme, Which, HeadDim, TileTokens, Isolating, Threads>;
  using groups = warp::row_groups<HeadDim, channelwise ? HeadDim : group>;
  using lanes = warp::row_lanes<HeadDim>;

  // Shared memory: parameters as stored; per channel also as floats [plane][group][channel] with `work` and
  // the mean behind them; then rows (fp16, or float after a transform) or codes.
  static constexpr bool halves = std::same_as<typename Scheme::transform_type, identity>;
  static constexpr int row_stride = HeadDim + 8;
  static constexpr int staged_bytes = row_stride * (halves ? 2 : 4);
  static constexpr int code_size = section::bits > 8 ? 2 : 1;
  static constexpr int code_row = HeadDim + 16 / code_size;
  static constexpr int float_planes = planes + (has_work ? 1 : 0) + (Isolating ? 1 : 0);
  static constexpr int work_plane = planes, mean_plane = planes + (has_work ? 1 : 0);
  KVCRUMB_API static constexpr int rows_offset(int tokens) noexcept {
    return section::param_bytes + (channelwise ? 4 * float_planes * (tokens / group) * HeadDim : 0);
  }
  KVCRUMB_DEVICE static float* floats(std::byte* shared, int plane, int tokens, int g) {
    return reinterpret_cast<float*>(shared + section::param_bytes) + (plane * (tokens / group) + g) * HeadDim;
  }

  KVCRUMB_DEVICE static int thread() { return static_cast<int>(threadIdx.x); }
  KVCRUMB_DEVICE static int warp() { return thread() / 32; }
  KVCRUMB_DEVICE static int lane() { return thread() % 32; }

  //! A row as floats in the basis of the codec.
  template <class Rows>
  KVCRUMB_DEVICE static void transformed(Scheme const& scheme, section_job<Rows> const& job, int head, int i,
                                         float (&x)[lanes::per_lane]) {
    warp::half_row<HeadDim> const row = warp::load_row<HeadDim>(job.rows.row(head, i), lane());
    KVCRUMB_UNROLL
    for (int e = 0; e < lanes::per_lane; ++e)
      x[e] = warp::keeps_nan<codec_type> ? row.value(e) : row.value_or_nan(e);
    warp::forward<HeadDim>(scheme.transform, head, x, lane());
  }

  // ---- groups of tokens

  template <class Rows>
  KVCRUMB_DEVICE static void stage_rows(Scheme const& scheme, section_job<Rows> const& job, int tokens,
                                        std::byte* shared) {
    std::byte* const to = shared + rows_offset(tokens);
    for (int i = warp(); i < tokens; i += Threads / 32) {
      if constexpr (halves) {
        warp::store_row<HeadDim>(reinterpret_cast<float16*>(to) + i * row_stride,
                                 warp::load_row<HeadDim>(job.rows.row(job.head, i), lane()), lane());
      } else {
        float x[lanes::per_lane];
        transformed(scheme, job, job.head, i, x);
        if (lane() >= lanes::active) continue;
        constexpr int words = lanes::per_lane < 4 ? lanes::per_lane : 4;
        auto* const out = reinterpret_cast<warp::word_vector<words>*>(
            reinterpret_cast<float*>(to) + i * row_stride + lane() * lanes::per_lane);
        KVCRUMB_UNROLL
        for (int v = 0; v < lanes::per_lane / words; ++v) {
          warp::word_vector<words> four;
          KVCRUMB_UNROLL
          for (int e = 0; e < words; ++e)
            four.word[e] = float_bits(x[v * words + e]);
          out[v] = four;
        }
      }
    }
  }
  KVCRUMB_DEVICE static float staged(std::byte const* rows, int i, int channel) {
    if constexpr (halves) {
      std::uint16_t const x = reinterpret_cast<std::uint16_t const*>(rows)[i * row_stride + channel];
      return warp::keeps_nan<codec_type> ? to_float(float16{x}) : ptx::low_half(x);
    } else {
      return reinterpret_cast<float const*>(rows)[i * row_stride + channel];
    }
  }

  //! Parameters of group g of a channel: over the rows that are not isolated, in the order of the host.
  template <class Rows>
  KVCRUMB_DEVICE static void fit_channel(codec_type const& codec, section_job<Rows> const& job, int g,
                                         int channel, int tokens, std::byte* shared) {
    std::byte const* const rows = shared + rows_offset(tokens);
    auto const merge = [](statistics a, statistics b) { return codec_type::merge(a, b); };
    auto const isolated = [&](int i) { return Isolating && job.isolated.test(job.head, g * group + i); };
    int kept = 0;
    statistics total{};
    if constexpr (warp::order_free<codec_type>) {
      for (int i = 0; i < group; ++i) {
        if (isolated(i)) continue;
        statistics const s = codec.lift(staged(rows, g * group + i, channel));
        total = kept > 0 ? merge(total, s) : s;
        ++kept;
      }
    } else {
      warp::tree_accumulator<statistics, 8> tree;
      for (int i = 0; i < group; ++i) {
        if (isolated(i)) continue;
        tree.add(codec.lift(staged(rows, g * group + i, channel)), merge);
        ++kept;
      }
      total = tree.total(merge);
    }
    group_params const p = kept > 0 ? codec.fit(total, kept) : group_params{};
    image::put(shared, channel, job.slots.begin / group + g, p);
    KVCRUMB_UNROLL
    for (int plane = 0; plane < planes; ++plane)
      floats(shared, plane, tokens, g)[channel] = p.value[plane];
    if constexpr (has_work) floats(shared, work_plane, tokens, g)[channel] = p.work;
    if constexpr (Isolating) {
      float mean = 0.0f;
      if (kept > 0 && kept < group) {
        auto const add = [](float a, float b) { return add_rn(a, b); };
        warp::tree_accumulator<float, 8> sum;
        for (int i = 0; i < group; ++i) {
          if (!isolated(i)) sum.add(staged(rows, g * group + i, channel), add);
        }
        mean = div_rn(sum.total(add), static_cast<float>(kept));
      }
      floats(shared, mean_plane, tokens, g)[channel] = mean;
    }
  }

  template <class Rows>
  struct channel_codes {
    codec_type const& codec;
    section_job<Rows> const& job;
    int tokens;
    std::byte* shared;

    KVCRUMB_DEVICE unsigned one(int i, int channel) const {
      int const g = i / group;
      group_params p;
      KVCRUMB_UNROLL
      for (int plane = 0; plane < planes; ++plane)
        p.value[plane] = floats(shared, plane, tokens, g)[channel];
      if constexpr (has_work) p.work = floats(shared, work_plane, tokens, g)[channel];
      float x = staged(shared + rows_offset(tokens), i, channel);
      if constexpr (Isolating) {
        if (job.isolated.test(job.head, i)) x = floats(shared, mean_plane, tokens, g)[channel];
      }
      return codec.encode(x, p);
    }
    KVCRUMB_DEVICE void neighbours(int i, int channel, unsigned (&code)[2]) const {
      code[0] = one(i, channel);
      code[1] = one(i, channel + 1);
    }
  };

  // ---- groups of channels

  //! Statistics of one token over the heads that share its groups; false if all of them are isolated.
  template <class Rows>
  KVCRUMB_DEVICE static bool joint_statistics(Scheme const& scheme, section_job<Rows> const& job, int i,
                                              statistics& total, int& n) {
    auto const merge = [](statistics a, statistics b) { return codec_type::merge(a, b); };
    int const first = job.head - job.head % head_span;
    int const last = first + head_span < job.heads ? first + head_span : job.heads;
    warp::tree_accumulator<statistics, 7> tree;  // of at most 4096 / 64 heads
    n = 0;
    for (int head = first; head < last; ++head) {
      if (Isolating && job.isolated.test(head, i)) continue;
      float x[lanes::per_lane];
      transformed(scheme, job, head, i, x);
      statistics of_head[1];
      warp::group_statistics<HeadDim, HeadDim>(scheme.codec, x, lane(), of_head);
      tree.add(of_head[0], merge);
      n += HeadDim;
    }
    if (n > 0) total = tree.total(merge);
    return n > 0;
  }

  //! One row by one warp: its parameters into the image, its codes into shared memory.
  template <class Rows>
  KVCRUMB_DEVICE static void encode_row(Scheme const& scheme, section_job<Rows> const& job, int i, int tokens,
                                        std::byte* shared) {
    bool const isolated = Isolating && job.isolated.test(job.head, i);
    group_params p[groups::per_lane] = {};
    float x[lanes::per_lane] = {};
    if (!isolated) {
      if constexpr (head_span > 1) {
        statistics total{};
        int n = 0;
        if (joint_statistics(scheme, job, i, total, n)) p[0] = scheme.codec.fit(total, n);
        transformed(scheme, job, job.head, i, x);
      } else {
        transformed(scheme, job, job.head, i, x);
        statistics s[groups::per_lane];
        warp::group_statistics<HeadDim, group>(scheme.codec, x, lane(), s);
        KVCRUMB_UNROLL
        for (int part = 0; part < groups::per_lane; ++part)
          p[part] = scheme.codec.fit(s[part], groups::length(groups::group(lane(), part)));
      }
    }
    if (lane() >= lanes::active) return;
    KVCRUMB_UNROLL
    for (int part = 0; part < groups::per_lane; ++part) {
      if (lane() % groups::span == 0)
        image::put(shared, job.slots.begin + i, groups::group(lane(), part), p[part]);
    }
    constexpr int words = lanes::per_lane * code_size / 4 > 0 ? lanes::per_lane * code_size / 4 : 1;
    std::uint32_t packed[words] = {};
    KVCRUMB_UNROLL
    for (int e = 0; e < lanes::per_lane; ++e) {
      unsigned const code = scheme.codec.encode(x[e], p[e / groups::within]);
      packed[e * code_size / 4] |= code << (8 * code_size * (e % (4 / code_size)));
    }
    std::byte* const to =
        shared + rows_offset(tokens) + (i * code_row + lane() * lanes::per_lane) * code_size;
    if constexpr (lanes::per_lane * code_size == 2) {
      *reinterpret_cast<std::uint16_t*>(to) = static_cast<std::uint16_t>(packed[0]);
    } else {
      KVCRUMB_UNROLL
      for (int w = 0; w < words; ++w)
        reinterpret_cast<std::uint32_t*>(to)[w] = packed[w];
    }
  }
};

}  // namespace kvcrumb::inline v0::block
