// SPDX-License-Identifier: Apache-2.0
//! @file Encoding rows of several heads into sections of one tile, and looking at the result.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kvcrumb/schemes.hpp"
#include "kvcrumb/trace/concept.hpp"
#include "unit/codec/encoded_group.hpp"

namespace kvcrumb::test {

//! Rows [head][token][dim] with outlier channels and offsets, as keys have them. Exact on every machine.
inline std::vector<float> key_like_rows(int heads, int tokens, int head_dim, std::uint64_t seed) {
  number_source source(seed);
  std::vector<float> rows;
  rows.reserve(static_cast<std::size_t>(heads * tokens * head_dim));
  for (int head = 0; head < heads; ++head) {
    for (int token = 0; token < tokens; ++token) {
      for (int dim = 0; dim < head_dim; ++dim) {
        float x = source.bell();
        if (dim % 16 == 5) x = 8.0f * x + 4.0f;
        if (dim % 32 == 9) x += -6.0f;
        rows.push_back(x);
      }
    }
  }
  return rows;
}

template <class Scheme>
class section_probe {
 public:
  section_probe(Scheme const& scheme, side which, tile_shape shape, int heads)
      : scheme_{scheme}, which_{which}, shape_{shape}, heads_{heads} {
    sections.assign(static_cast<std::size_t>(heads),
                    std::vector<std::byte>(static_cast<std::size_t>(scheme.section_bytes(which, shape))));
  }

  //! Encodes tokens [first, first + count) of rows [head][all][dim] into slots from `slot` on.
  template <class Tracer = null_tracer>
  void encode(std::vector<float> const& rows, int all, int first, int count, int slot,
              std::vector<std::uint8_t> const& isolated = {}, Tracer&& tracer = Tracer{}) {
    std::vector<float> part;
    std::vector<std::uint8_t> flags;
    for (int head = 0; head < heads_; ++head) {
      for (int i = first; i < first + count; ++i) {
        auto const row = rows.begin() + (static_cast<std::ptrdiff_t>(head) * all + i) * shape_.head_dim;
        part.insert(part.end(), row, row + shape_.head_dim);
        if (!isolated.empty()) flags.push_back(isolated[static_cast<std::size_t>(head * all + i)]);
      }
    }
    std::vector<std::byte*> pointers;
    for (auto& section : sections)
      pointers.push_back(section.data());
    encode_request request;
    request.rows = part.data();
    request.isolated = isolated.empty() ? nullptr : flags.data();
    request.sections = pointers.data();
    request.heads = heads_;
    request.count = count;
    request.slot = slot;
    request.position = 1000 + first;
    scheme_.encode(which_, shape_, request, tracer);
  }

  std::vector<float> decoded_row(int head, int slot) const {
    std::vector<float> row(static_cast<std::size_t>(shape_.head_dim));
    scheme_.decode_row(which_, shape_, head, sections[static_cast<std::size_t>(head)].data(), slot,
                       row.data());
    return row;
  }

  unsigned code(int head, int slot, int dim) const {
    return Scheme::layout_type::load(spec(), sections[static_cast<std::size_t>(head)].data(), slot, dim);
  }
  group_params params(int head, int owner, int group) const {
    return scheme_.params(spec(), sections[static_cast<std::size_t>(head)].data(), owner, group);
  }
  section_spec spec() const { return Scheme::spec(which_, shape_); }

  std::vector<std::vector<std::byte>> sections;

 private:
  Scheme scheme_;
  side which_;
  tile_shape shape_;
  int heads_;
};

//! Equal as bits, so that a NaN equals itself.
inline bool same_params(group_params const& a, group_params const& b) {
  return bits_of(a.value[0]) == bits_of(b.value[0]) && bits_of(a.value[1]) == bits_of(b.value[1]);
}

}  // namespace kvcrumb::test
