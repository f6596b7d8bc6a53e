// SPDX-License-Identifier: Apache-2.0
//! @file A layout of one's own: one byte per code, parameters first; and the conversion from the default
//! layout.
#include <cstdio>
#include <random>
#include <vector>

#include <kvcrumb/kvcrumb.hpp>

using namespace kvcrumb;

// example-begin layout
//! Parameters [plane][group][owner], then codes [token][channel], one byte each: easy to read in a debugger.
struct plain_bytes {
  static constexpr char const* name = "plain_bytes";

  static constexpr status supports(section_spec const& s) noexcept {
    if (s.bits > 8) return status::bad_bits;
    return check_shape(s.shape);
  }
  static constexpr std::int64_t code_bytes(section_spec const& s) noexcept {
    return std::int64_t{s.shape.tile_tokens} * s.shape.head_dim;
  }
  static constexpr std::int64_t section_bytes(section_spec const& s) noexcept {
    return code_bytes(s) + s.param_count() * s.param_bytes;
  }
  //! Bit i of a code, counted from the beginning of the section; no two (code, bit) may share a place.
  static constexpr std::int64_t code_bit(section_spec const& s, int token, int dim, int i) noexcept {
    std::int64_t const first = s.param_count() * s.param_bytes;
    return (first + std::int64_t{token} * s.shape.head_dim + dim) * 8 + i;
  }
  static constexpr std::int64_t param_offset(section_spec const& s, int plane, int owner,
                                             int group) noexcept {
    return ((std::int64_t{plane} * s.groups() + group) * s.owners() + owner) * s.param_bytes;
  }
  static constexpr unsigned load(section_spec const& s, std::byte const* section, int token,
                                 int dim) noexcept {
    return std::to_integer<unsigned>(section[code_bit(s, token, dim, 0) / 8]);
  }
  static constexpr void store(section_spec const& s, std::byte* section, int token, int dim,
                              unsigned code) noexcept {
    section[code_bit(s, token, dim, 0) / 8] = static_cast<std::byte>(code);
  }
};
static_assert(layout<plain_bytes>);
// example-end layout

namespace {

constexpr int width = 128;
constexpr std::int64_t tokens = 128;

template <class Scheme>
std::vector<std::byte> key_section(Scheme const& scheme, std::vector<float> const& rows) {
  kv_cache<Scheme> cache;
  auto const view = hnd_rows(rows.data(), tokens, width);
  if (kv_cache<Scheme>::create(scheme, {.kv_heads = 1}, cache) != status::ok) return {};
  if (cache.append(view, view, tokens) != status::ok) return {};
  std::byte const* section = cache.blob(0, 0) + cache.blob_parts().key_offset;
  return {section, section + scheme.key.section_bytes(side::key, cache.config().shape)};
}

}  // namespace

int main() {
  std::mt19937 engine{13};
  std::normal_distribution<float> normal;
  std::vector<float> rows(tokens * width);
  for (float& x : rows)
    x = normal(engine);

  using packed_type = schemes::kivi_type<2, 32>;
  using plain_type = schemes::kivi_type<2, 32, plain_bytes>;
  std::vector<std::byte> const packed = key_section(packed_type{.flush = {0, 32}}, rows);
  std::vector<std::byte> const plain = key_section(plain_type{.flush = {0, 32}}, rows);
  if (packed.empty() || plain.empty()) return 1;

  // example-begin convert
  section_spec const spec = packed_type::key_type::spec(side::key, {width, 128});
  std::vector<std::byte> converted(plain.size()), back(packed.size());
  status const there = convert_section<fragment, plain_bytes>(spec, packed.data(), converted.data());
  status const again = convert_section<plain_bytes, fragment>(spec, converted.data(), back.data());
  // example-end convert
  std::printf("first codes of token 0:");
  for (int dim = 0; dim < 16; ++dim)
    std::printf(" %u", plain_bytes::load(spec, converted.data(), 0, dim));
  std::printf("\nsection of 128 x 128 codes: %zu bytes packed, %zu as plain bytes\n", packed.size(),
              plain.size());
  bool const good = there == status::ok && again == status::ok && converted == plain && back == packed;
  std::printf("encoded and converted bytes %s, there and back %s\n", converted == plain ? "agree" : "DIFFER",
              back == packed ? "unchanged" : "CHANGED");
  return good ? 0 : 1;
}
