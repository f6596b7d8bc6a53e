// SPDX-License-Identifier: Apache-2.0
//! @file host::encode against the scheme's own encode, byte for byte, on ordinary and on malicious rows.
#pragma once

#include "kvcrumb/host/encode.hpp"
#include "kvcrumb/host/encode_scores.hpp"
#include "unit/host/host_fixture.hpp"

namespace kvcrumb::test {

//! Every instruction set that this processor has.
inline std::vector<host::execution> all_instruction_sets() {
  std::vector<host::execution> all;
  for (host::execution const& how : all_executions())
    if (how.arithmetic == host::precision::two_terms) all.push_back(how);
  return all;
}

//! Rows [head][count][dim] in patches of 8 tokens and 16 channels, each of a kind of its own: normal, ties,
//! wide ranges, denormals, huge, zeros of both signs, constants, and sometimes one NaN or infinity.
template <class Row>
std::vector<Row> malicious_rows(std::mt19937& engine, int heads, int count, int dim) {
  std::vector<Row> rows(size(heads) * size(count) * size(dim));
  std::normal_distribution<float> normal;
  for (int head = 0; head < heads; ++head) {
    for (int first = 0; first < count; first += 8) {
      for (int begin = 0; begin < dim; begin += 16) {
        unsigned const kind = static_cast<unsigned>(engine() % 12u);
        float const constant = normal(engine) * std::exp2(static_cast<float>(engine() % 20u) - 10.0f);
        for (int i = first; i < std::min(first + 8, count); ++i) {
          for (int d = begin; d < begin + 16; ++d) {
            float x = normal(engine);
            if (kind == 2) x = static_cast<float>(static_cast<int>(engine() % 7u) - 3);
            if (kind == 3) x *= std::exp2(static_cast<float>(engine() % 32u) - 20.0f);
            if (kind == 4) x *= 0x1p-23f;
            if (kind == 5)
              x = (engine() % 2u == 0 ? 1.0f : -1.0f) * (65504.0f - static_cast<float>(engine() % 4096u));
            if (kind == 6) x = engine() % 2u == 0 ? 0.0f : -0.0f;
            if (kind == 7) x = constant;
            if (kind == 8) x = 0.25f * static_cast<float>(engine() % 16u);
            if (kind == 9) x = constant + 0x1p-10f * constant * static_cast<float>(engine() % 3u);
            rows[(size(head) * size(count) + size(i)) * size(dim) + size(d)] = from_float<Row>(x);
          }
        }
        if (kind == 11 && engine() % 8u == 0) {
          std::size_t const at =
              (size(head) * size(count) + size(first)) * size(dim) + size(begin) + engine() % 16u;
          rows[at] = from_float<Row>(engine() % 2u == 0 ? std::nanf("") : -HUGE_VALF);
        }
      }
    }
  }
  return rows;
}

//! Some isolated tokens of each head; those of head 0 begin with a whole run.
inline std::vector<std::uint8_t> some_isolated(std::mt19937& engine, int heads, int count) {
  std::vector<std::uint8_t> flags(size(heads) * size(count));
  for (std::size_t i = 0; i < flags.size(); ++i)
    flags[i] =
        i < 40 || engine() % 9u == 0 ? static_cast<std::uint8_t>(1 + engine() % 255u) : std::uint8_t{0};
  return flags;
}

//! A request whose sections hold random bytes before; `nhd`: rows in the order [token][head].
struct encode_case {
  side which;
  tile_shape shape;
  int heads, count, slot;
  bool isolate;
  bool nhd = false;
};

template <class Scheme, class Row>
void check_encode(Scheme const& scheme, encode_case const& c, unsigned seed) {
  REQUIRE(scheme.supports(c.which, c.shape, c.heads) == status::ok);
  std::mt19937 engine{seed};
  int const dim = c.shape.head_dim;
  std::vector<Row> const rows =
      malicious_rows<Row>(engine, c.nhd ? 1 : c.heads, c.nhd ? c.heads * c.count : c.count, dim);
  auto const view = c.nhd ? nhd_rows(rows.data(), c.heads, dim) : hnd_rows(rows.data(), c.count, dim);
  std::vector<std::uint8_t> const flags = some_isolated(engine, c.heads, c.count);
  std::uint8_t const* const isolated = c.isolate ? flags.data() : nullptr;
  std::size_t const bytes = size(scheme.section_bytes(c.which, c.shape));
  std::vector<std::byte> before(size(c.heads) * (bytes + 8));
  for (std::byte& b : before)
    b = static_cast<std::byte>(engine() & 255u);
  auto const sections_in = [&](std::vector<std::byte>& all) {
    std::vector<std::byte*> at;
    for (int h = 0; h < c.heads; ++h)
      at.push_back(all.data() + size(h) * (bytes + 8) + 3);  // at odd addresses
    return at;
  };
  std::vector<float> floats;
  for (int h = 0; h < c.heads; ++h) {
    for (int i = 0; i < c.count; ++i) {
      for (int d = 0; d < dim; ++d)
        floats.push_back(to_float(view.row(h, i)[d]));
    }
  }
  std::vector<std::byte> expected = before;
  std::vector<std::byte*> const expected_at = sections_in(expected);
  null_tracer none;
  scheme.encode(c.which, c.shape, {floats.data(), isolated, expected_at.data(), c.heads, c.count, c.slot, 0},
                none);
  aligned_bytes const work(host::encode_workspace_bytes(scheme, c.which, c.shape, c.heads, c.count));
  for (host::execution const& how : all_instruction_sets()) {
    std::vector<std::byte> got = before;
    std::vector<std::byte*> const at = sections_in(got);
    host::row_request<Row const> const r{view, isolated, at.data(), c.heads, c.count, c.slot};
    std::memset(work.bytes().data(), 0xC3, work.bytes().size());
    REQUIRE(host::encode(scheme, c.which, c.shape, r, work.bytes(), how) == status::ok);
    bool const intact = work.intact();
    std::size_t const different =
        static_cast<std::size_t>(std::mismatch(got.begin(), got.end(), expected.begin()).first - got.begin());
    if (intact && different == got.size()) continue;
    std::size_t const head = different / (bytes + 8), byte = different % (bytes + 8) - 3;
    CAPTURE(host::to_string(how.isa), dim, c.shape.tile_tokens, c.which == side::key, c.heads, c.count,
            c.slot, c.isolate, seed, head, byte, fragment::code_bytes(Scheme::spec(c.which, c.shape)));
    CHECK(intact);
    CHECK(different == got.size());
    return;
  }
}

//! All head sizes, tiles and sides, whole tiles and parts of them.
template <class Row = float16, class Scheme>
void check_encode_everywhere(Scheme const& scheme, unsigned seed, int most_dim = 256) {
  constexpr int unit = Scheme::append_tokens;
  for (int const dim : {64, 96, 128, 192, 256}) {
    for (int const tokens : {32, 64, 128}) {
      if (dim > most_dim || unit > tokens || !Scheme::grouping_type::fits(dim, tokens)) continue;
      for (side const which : {side::key, side::value}) {
        check_encode<Scheme, Row>(scheme, {which, {dim, tokens}, 2, tokens, 0, seed % 2 == 0}, seed);
        int const count = unit == 1 ? 1 + static_cast<int>(seed % 21u) : unit;
        check_encode<Scheme, Row>(scheme, {which, {dim, tokens}, 3, count, tokens - count, seed % 2 != 0},
                                  seed + 1);
        seed += 3;
      }
    }
  }
}

//! host::score_rows against the score of one row at a time, bit for bit.
template <class Score, class Row>
void check_scores(Score const& score, int dim, int tokens, unsigned seed) {
  std::mt19937 engine{seed};
  std::vector<Row> const rows = malicious_rows<Row>(engine, 2, tokens, dim);
  for (host::execution const& how : all_instruction_sets()) {
    std::vector<float> got(size(2 * tokens) + 1, 7.0f);
    REQUIRE(host::score_rows(score, hnd_rows(rows.data(), tokens, dim), 2, tokens, dim, got.data(), how) ==
            status::ok);
    CHECK(got.back() == 7.0f);
    std::vector<float> row(size(dim));
    int different = 0;
    for (std::size_t i = 0; i < size(2 * tokens); ++i) {
      for (std::size_t d = 0; d < row.size(); ++d)
        row[d] = to_float(rows[i * row.size() + d]);
      float const expected = score(row.data(), dim);
      bool const both_nan = is_nan_bits(expected) && is_nan_bits(got[i]);
      different += both_nan || float_bits(expected) == float_bits(got[i]) ? 0 : 1;
    }
    CAPTURE(host::to_string(how.isa), Score::name, dim, tokens, seed);
    CHECK(different == 0);
  }
}

}  // namespace kvcrumb::test
