// SPDX-License-Identifier: Apache-2.0
//! @file What a block encodes (rows, flags, slots), and how parameters and codes lie in shared memory
//! meanwhile.
#pragma once

#include "kvcrumb/block/encode_words.cuh"
#include "kvcrumb/codec/concept.hpp"
#include "kvcrumb/view/batch_cache.hpp"

namespace kvcrumb::inline v0::block {

//! Rows of a batch as encode kernels read them: row i of a kv head of one sequence.
template <class Element>
struct plain_rows {
  using element = Element;
  batch_rows<Element const> rows;
  std::int64_t sequence, first;

  KVCRUMB_DEVICE Element const* row(int head, int i) const { return rows.row(sequence, head, first + i); }
  //! Every `step`-th row of a head from row i on, one with each next().
  struct walk {
    Element const* at;
    std::int64_t step;
    KVCRUMB_DEVICE walk(plain_rows const& from, int head, int i, int step_rows)
        : at{from.row(head, i)}, step{step_rows * from.rows.stride_token} {}
    KVCRUMB_DEVICE Element const* next() {
      Element const* const here = at;
      at += step;
      return here;
    }
  };
};
//! Rows of a ring, at most `capacity`.
struct ring_rows {
  using element = float16;
  batch_rows<float16> rows;
  std::int64_t sequence;
  int first, capacity;  //!< where row 0 is in the ring

  KVCRUMB_DEVICE float16 const* row(int head, int i) const {
    int const at = first + i;
    return rows.row(sequence, head, at < capacity ? at : at - capacity);
  }
  struct walk {
    ring_rows const& from;
    int head, i, step;
    KVCRUMB_DEVICE walk(ring_rows const& rows_, int head_, int i_, int step_)
        : from{rows_}, head{head_}, i{i_}, step{step_} {}
    KVCRUMB_DEVICE float16 const* next() {
      float16 const* const here = from.row(head, i);
      i += step;
      return here;
    }
  };
};

//! Isolated rows of neighbouring kv heads: bit i of head h is row i. Null: none are.
struct row_flags {
  static constexpr int words = max_tile_tokens / 32;
  std::uint32_t const* bits = nullptr;  //!< [heads][words], from head `first` on
  int first = 0;

  KVCRUMB_DEVICE bool test(int head, int i) const {
    return bits != nullptr && ((bits[(head - first) * words + i / 32] >> (i % 32)) & 1u) != 0;
  }
  //! Whether any row of this head is isolated.
  KVCRUMB_DEVICE bool any(int head) const {
    std::uint32_t all = 0;
    KVCRUMB_UNROLL
    for (int i = 0; i < words; ++i)
      all |= bits != nullptr ? bits[(head - first) * words + i] : 0u;
    return all != 0;
  }
};

//! What a block encodes: rows [0, end - begin) of `head` into slots [begin, end) of a section.
template <class Rows>
struct section_job {
  Rows rows;
  int head, heads;  //!< `heads`: those of the layer
  slot_range slots;
  std::byte* section;
  row_flags isolated;
};

//! The parameters of one section in shared memory, byte for byte as in the section.
template <class Section, class Param>
struct param_image {
  static constexpr int planes = Section::spec.planes, groups = Section::spec.groups();
  static constexpr int param_size = static_cast<int>(sizeof(Param));
  //! Bytes of one vector: a plane of a group, all owners.
  static constexpr int vector = (Section::spec.owners() + 31) / 32 * 32 * param_size;
  static_assert(planes == 0 || planes * groups * vector == Section::param_bytes);

  template <int Threads>
  KVCRUMB_DEVICE static void clear(std::byte* image) {
    for (int i = static_cast<int>(threadIdx.x); i < Section::param_bytes / 4; i += Threads)
      reinterpret_cast<std::uint32_t*>(image)[i] = 0u;
  }

  KVCRUMB_DEVICE static void put(std::byte* image, int owner, int group, group_params const& p) {
    KVCRUMB_UNROLL
    for (int plane = 0; plane < planes; ++plane) {
      int const at = (plane * groups + group) * vector + fragment::param_index(owner) * param_size;
      *reinterpret_cast<Param*>(image + at) = from_float<Param>(p.value[plane]);
    }
  }

  //! The same for two fp16 planes whose patterns are the halves of `both`.
  KVCRUMB_DEVICE static void put_halves(std::byte* image, int owner, int group, std::uint32_t both) {
    auto* const at =
        reinterpret_cast<std::uint16_t*>(image) + group * (vector / 2) + fragment::param_index(owner);
    at[0] = static_cast<std::uint16_t>(both & 0xFFFFu);
    at[groups * vector / 2] = static_cast<std::uint16_t>(both >> 16);
  }

  //! Copies what belongs to these slots to the section, or everything if they are the first. All threads.
  template <int Threads>
  KVCRUMB_DEVICE static void store(std::byte* section, slot_range slots, std::byte const* image) {
    if constexpr (planes == 0) return;
    constexpr int length = Section::spec.group;
    std::byte* const to = section + Section::code_bytes;
    int const thread = static_cast<int>(threadIdx.x);
    auto const copy = [&](int at) {
      *reinterpret_cast<warp::word_vector<4>*>(to + at) =
          *reinterpret_cast<warp::word_vector<4> const*>(image + at);
    };
    if (slots.fresh) {
      for (int at = 16 * thread; at < Section::param_bytes; at += 16 * Threads)
        copy(at);
    } else if constexpr (Section::spec.per_channel) {
      int const first = slots.begin / length, chunk = (slots.end / length - first) * vector;
      for (int at = 16 * thread; at < planes * chunk; at += 16 * Threads)
        copy((at / chunk * groups + first) * vector + at % chunk);
    } else {
      each_of_tokens<Threads>(slots, [&](int at) {
        *reinterpret_cast<Param*>(to + at) = *reinterpret_cast<Param const*>(image + at);
      });
    }
  }
  //! Zero for the tokens of these slots. All threads.
  template <int Threads>
  KVCRUMB_DEVICE static void store_zeros(std::byte* section, slot_range slots) {
    std::byte* const to = section + Section::code_bytes;
    each_of_tokens<Threads>(slots, [&](int at) { *reinterpret_cast<Param*>(to + at) = Param{}; });
  }

 private:
  template <int Threads, class Store>
  KVCRUMB_DEVICE static void each_of_tokens(slot_range slots, Store store_at) {
    int const count = slots.end - slots.begin;
    for (int i = static_cast<int>(threadIdx.x); i < planes * groups * count; i += Threads)
      store_at(i / count * vector + fragment::param_index(slots.begin + i % count) * param_size);
  }
};

//! Zero bits for every slot.
struct zero_codes {
  KVCRUMB_DEVICE unsigned one(int, int) const { return 0u; }
  KVCRUMB_DEVICE void neighbours(int, int, unsigned (&code)[2]) const { code[0] = code[1] = 0u; }
};

//! Codes of rows in shared memory, CodeSize bytes each, Stride of them from row to row.
template <int CodeSize, int Stride>
struct staged_codes {
  std::byte const* codes;

  KVCRUMB_DEVICE unsigned one(int i, int channel) const {
    if constexpr (CodeSize == 2) {
      return reinterpret_cast<std::uint16_t const*>(codes)[i * Stride + channel];
    } else {
      return static_cast<unsigned>(codes[i * Stride + channel]);
    }
  }
  KVCRUMB_DEVICE void neighbours(int i, int channel, unsigned (&code)[2]) const {
    if constexpr (CodeSize == 2) {
      std::uint32_t const two = reinterpret_cast<std::uint32_t const*>(codes)[(i * Stride + channel) / 2];
      code[0] = two & 0xFFFFu;
      code[1] = two >> 16;
    } else {
      unsigned const two = reinterpret_cast<std::uint16_t const*>(codes)[(i * Stride + channel) / 2];
      code[0] = two & 0xFFu;
      code[1] = two >> 8;
    }
  }
};

}  // namespace kvcrumb::inline v0::block
