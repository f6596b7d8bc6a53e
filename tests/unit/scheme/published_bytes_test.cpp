// SPDX-License-Identifier: Apache-2.0
//! @file Whole sections of the named systems against the independent references.
#include <cmath>
#include <cstdint>
#include <vector>

#include "kvcrumb/reference/quantizers.hpp"
#include "support/catch.hpp"
#include "unit/scheme/section_probe.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;
namespace ref = kvcrumb::reference;

namespace {

constexpr int heads = 2, dim = 128, tokens = 128;
constexpr tile_shape shape{dim, tokens};

//! Head `head` of rows [head][token][dim], in double.
std::vector<double> head_of(std::vector<float> const& rows, int head) {
  auto const first = rows.begin() + static_cast<std::ptrdiff_t>(head) * tokens * dim;
  return {first, first + tokens * dim};
}

//! Rows that make KIVI divide into exact halves here and there: multiples of 1/8.
std::vector<float> half_rows(std::uint64_t seed) {
  auto rows = halves(key_like_rows(heads, tokens, dim, seed));
  for (std::size_t i = 0; i < rows.size(); i += 3)
    rows[i] = std::nearbyint(rows[i] * 8.0f) * 0.125f;
  for (std::size_t i = 0; i < rows.size(); i += dim)
    rows[i] = 1.5f;  // a constant channel
  return rows;
}

template <int Bits, int Group, class Layout>
void check_kivi() {
  auto const rows = half_rows(static_cast<std::uint64_t>(Bits * 1000 + Group));
  using preset = schemes::kivi_type<Bits, Group, Layout>;
  CAPTURE(Bits, Group, Layout::name);
  section_probe<typename preset::key_type> keys({}, side::key, shape, heads);
  section_probe<typename preset::value_type> values({}, side::value, shape, heads);
  keys.encode(rows, tokens, 0, tokens, 0);
  values.encode(rows, tokens, 0, tokens, 0);
  for (int head = 0; head < heads; ++head) {
    auto const x = head_of(rows, head);
    auto const k = ref::kivi_pack_keys(x, tokens, dim, Group, Bits);
    auto const v = ref::kivi_pack_values(x, tokens, dim, Group, Bits);
    std::size_t wrong = 0;
    auto const compare = [&](auto const& probe, ref::kivi_packed const& packed, int owners, int groups) {
      for (int owner = 0; owner < owners; ++owner) {
        for (int group = 0; group < groups; ++group) {
          auto const p = probe.params(head, owner, group);
          auto const at = static_cast<std::size_t>(owner * groups + group);
          wrong += static_cast<double>(p.value[0]) != packed.scale[at] ? 1 : 0;
          wrong += static_cast<double>(p.value[1]) != packed.mn[at] ? 1 : 0;
        }
      }
      for (int t = 0; t < tokens; ++t) {
        auto const row = probe.decoded_row(head, t);
        for (int d = 0; d < dim; ++d) {
          double const expected = packed.xhat[static_cast<std::size_t>(t * dim + d)];
          double const actual = static_cast<double>(row[static_cast<std::size_t>(d)]);
          wrong += std::fabs(actual - expected) > 2e-7 * (std::fabs(expected) + 64.0) ? 1 : 0;
        }
      }
    };
    compare(keys, k, dim, tokens / Group);
    compare(values, v, tokens, dim / Group);
    if constexpr (std::is_same_v<Layout, linear>) {
      auto const& key_section = keys.sections[static_cast<std::size_t>(head)];
      auto const& value_section = values.sections[static_cast<std::size_t>(head)];
      for (std::size_t i = 0; i < k.words.size(); ++i) {
        wrong += load_word(key_section.data(), static_cast<std::int64_t>(i)) != k.words[i] ? 1 : 0;
        wrong += load_word(value_section.data(), static_cast<std::int64_t>(i)) != v.words[i] ? 1 : 0;
      }
    } else {  // the same codes, elsewhere
      for (int t = 0; t < tokens; ++t) {
        for (int d = 0; d < dim; ++d) {
          int const per_word = 32 / Bits;
          auto const code = [&](ref::kivi_packed const& packed, int line, int j, int length) {
            std::uint32_t const word =
                packed.words[static_cast<std::size_t>(line * length / per_word + j / per_word)];
            return (word >> (Bits * (j % per_word))) & ((1u << Bits) - 1u);
          };
          wrong += keys.code(head, t, d) != code(k, d, t, tokens) ? 1 : 0;
          wrong += values.code(head, t, d) != code(v, t, d, dim) ? 1 : 0;
        }
      }
    }
    CHECK(wrong == 0);
  }
}

template <class Preset>
void check_ggml(std::size_t block_bytes, std::vector<std::uint8_t> (*expected)(std::vector<double> const&)) {
  auto const rows = half_rows(9);
  section_probe<typename Preset::key_type> probe({}, side::key, shape, heads);
  probe.encode(rows, tokens, 0, tokens, 0);
  std::size_t wrong = 0;
  for (int head = 0; head < heads; ++head) {
    auto const& section = probe.sections[static_cast<std::size_t>(head)];
    REQUIRE(section.size() == tokens * dim / 32 * block_bytes);
    auto const x = head_of(rows, head);
    for (std::size_t block = 0; block < tokens * dim / 32; ++block) {
      auto const first = x.begin() + static_cast<std::ptrdiff_t>(32 * block);
      auto const bytes = expected({first, first + 32});
      REQUIRE(bytes.size() == block_bytes);
      for (std::size_t i = 0; i < block_bytes; ++i) {
        wrong += std::to_integer<std::uint8_t>(section[block * block_bytes + i]) != bytes[i] ? 1 : 0;
      }
    }
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("KIVI's published words, scales and minima", "[scheme][kivi]") {
  check_kivi<2, 32, linear>();
  check_kivi<4, 32, linear>();
  check_kivi<2, 128, linear>();
  check_kivi<2, 32, fragment>();
  check_kivi<4, 64, fragment>();
}

TEST_CASE("OTT uses KIVI's codes in groups of 128", "[scheme][ott]") {
  auto const rows = half_rows(5);
  section_probe<schemes::ott_type<2>::key_type> ott({}, side::key, shape, heads);
  section_probe<schemes::kivi_type<2, 128>::key_type> kivi({}, side::key, shape, heads);
  ott.encode(rows, tokens, 0, tokens, 0);
  kivi.encode(rows, tokens, 0, tokens, 0);
  CHECK(ott.sections == kivi.sections);
}

TEST_CASE("q8_0 and q4_0 sections are ggml's blocks in a row", "[scheme][ggml]") {
  check_ggml<schemes::q8_0_type>(34, [](std::vector<double> const& x) { return ref::ggml_q8_0(x).bytes; });
  check_ggml<schemes::q4_0_type>(18, [](std::vector<double> const& x) { return ref::ggml_q4_0(x).bytes; });
}

TEST_CASE("QServe rows and NQKV rows equal the references", "[scheme][qserve][nqkv]") {
  auto const rows = half_rows(6);
  section_probe<schemes::qserve4_type<>::value_type> qserve({}, side::value, shape, heads);
  section_probe<schemes::nqkv4_type<>::key_type> nqkv({}, side::key, shape, heads);
  qserve.encode(rows, tokens, 0, tokens, 0);
  nqkv.encode(rows, tokens, 0, tokens, 0);
  std::vector<double> const wide(rows.begin(), rows.end());
  int wrong = 0;
  for (int t = 0; t < tokens; ++t) {
    auto const both =
        ref::nqkv_row(ref::concatenated_heads(wide, heads, tokens, dim, static_cast<std::size_t>(t)));
    REQUIRE(both.absmax.size() == 1);
    for (int head = 0; head < heads; ++head) {
      auto const first = wide.begin() + static_cast<std::ptrdiff_t>(head * tokens + t) * dim;
      auto const row = ref::qserve_kv4_row(std::vector<double>(first, first + dim));
      wrong += static_cast<double>(qserve.params(head, t, 0).value[0]) != row.scale ? 1 : 0;
      wrong += static_cast<double>(qserve.params(head, t, 0).value[1]) != row.zero ? 1 : 0;
      wrong += static_cast<double>(nqkv.params(head, t, 0).value[0]) != both.absmax[0] ? 1 : 0;
      for (int d = 0; d < dim; ++d) {
        wrong += static_cast<int>(qserve.code(head, t, d)) != row.codes[static_cast<std::size_t>(d)] ? 1 : 0;
        wrong +=
            static_cast<int>(nqkv.code(head, t, d)) != both.codes[static_cast<std::size_t>(head * dim + d)]
                ? 1
                : 0;
      }
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("the fp16 baseline stores the bits of each value", "[scheme][fp16]") {
  auto const rows = key_like_rows(heads, tokens, dim, 7);
  section_probe<schemes::fp16_type::key_type> probe({}, side::key, shape, heads);
  probe.encode(rows, tokens, 0, tokens, 0);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    auto const head = i / (tokens * dim), at = i % (tokens * dim);
    unsigned const low = std::to_integer<unsigned>(probe.sections[head][2 * at]);
    unsigned const high = std::to_integer<unsigned>(probe.sections[head][2 * at + 1]);
    wrong += (high << 8 | low) != ref::fp16_bits(static_cast<double>(rows[i])) ? 1 : 0;
  }
  CHECK(wrong == 0);
}

TEST_CASE("sections of the named systems have the stated sizes", "[scheme]") {
  // Codes plus 2 bytes per stored parameter, 128 x 128 values.
  CHECK(schemes::kivi<2>().key.section_bytes(side::key, shape) == 4096 + 128 * 4 * 4);
  CHECK(schemes::kivi<4>().value.section_bytes(side::value, shape) == 8192 + 128 * 4 * 4);
  CHECK(schemes::ott().key.section_bytes(side::key, shape) == 4096 + 128 * 4);
  CHECK(schemes::ott().value.section_bytes(side::value, shape) == 4096 + 128 * 4);
  CHECK(schemes::nqkv4().key.section_bytes(side::key, shape) == 8192 + 128 * 2);
  CHECK(schemes::qserve4().key.section_bytes(side::key, shape) == 8192 + 128 * 4);
  CHECK(schemes::q8_0().key.section_bytes(side::key, shape) == 128 * 128 / 32 * 34);
  CHECK(schemes::q4_0().key.section_bytes(side::key, shape) == 128 * 128 / 32 * 18);
  CHECK(schemes::fp16().key.section_bytes(side::key, shape) == 32768);
  CHECK(schemes::fp8().key.section_bytes(side::key, shape) == 16384);
}
