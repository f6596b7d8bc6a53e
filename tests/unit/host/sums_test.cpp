// SPDX-License-Identifier: Apache-2.0
//! @file The integer sums of every instruction set equal those computed code by code from the byte format.
#include "unit/host/host_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

//! A section of random codes, the operand terms of one query row and what the sums must be.
struct problem {
  section_spec spec;
  host::section_plan plan;
  host::operand_sets sets;
  host::level_table levels;
  std::vector<std::byte> section;
  std::vector<std::int32_t> values;  //!< [row group][column], 256 high + low, in operand order
};

problem make_problem(section_spec const& spec, unsigned seed, bool extreme) {
  problem p{spec, host::section_plan::of(spec), {}, {}, {}, {}};
  p.sets = host::operand_sets::of_plan(p.plan);
  std::mt19937 engine{seed};
  p.section.resize(test::size(fragment::section_bytes(spec)));
  for (std::int64_t i = 0; i < fragment::code_bytes(spec); ++i)
    p.section[test::size(i)] = extreme ? std::byte{0xFF} : static_cast<std::byte>(engine() & 255u);
  for (std::uint8_t& x : p.levels.high)
    x = extreme ? 255 : static_cast<std::uint8_t>(engine() & 255u);
  for (std::uint8_t& x : p.levels.low)
    x = extreme ? 255 : static_cast<std::uint8_t>(engine() & 255u);
  std::uniform_int_distribution<std::int32_t> value{-32512, 32512};
  // The largest, and those with both bytes large.
  constexpr std::int32_t ends[4] = {32512, -32512, 126 * 256 + 127, -126 * 256 - 128};
  int const count = p.plan.row_groups() * host::padded_columns(p.plan);
  for (int i = 0; i < count; ++i) {
    bool const padding = i % host::padded_columns(p.plan) >= p.plan.columns;
    p.values.push_back(padding ? 0 : extreme ? ends[seed / 7 % 4] : value(engine));
  }
  return p;
}

//! The sums of rows in operand order, from fragment::load; 64-bit, so that an overflow elsewhere shows.
std::vector<std::int64_t> expected_sums(problem const& p, bool with_levels, int k_begin, int k_end) {
  std::vector<std::int64_t> sums(test::size(p.plan.rows));
  for (int row = 0; row < p.plan.rows; ++row) {
    int const group = p.plan.column_owned ? row / p.plan.group : 0;
    for (int column = 0; column < p.plan.columns; ++column) {
      if (column / p.plan.unit_columns() < k_begin || column / p.plan.unit_columns() >= k_end) continue;
      bool const key = p.spec.which == side::key;
      unsigned const code = fragment::load(p.spec, p.section.data(), key ? row : column, key ? column : row);
      std::int32_t const value =
          p.values[test::size(group * host::padded_columns(p.plan) + host::operand_place(column))];
      std::int32_t const high = (value + 128) >> 8;
      sums[test::size(host::operand_place(row))] +=
          with_levels ? p.levels.high[code] * std::int64_t{value} + p.levels.low[code] * std::int64_t{high}
                      : code * std::int64_t{value};
    }
  }
  return sums;
}

//! The bytes of sign * values as one target stores them; and what it computes, for two query rows, of which
//! the second has the negated operand.
#define KVCRUMB_TEST_SUMS(target)                                                                            \
  void fill_terms_##target(problem const& p, int sign, std::int8_t* terms) {                                 \
    namespace t = host::target_##target;                                                                     \
    int const padded = host::padded_columns(p.plan);                                                         \
    for (int group = 0; group < p.plan.row_groups(); ++group) {                                              \
      for (int i = 0; i < padded; i += 64) {                                                                 \
        std::int32_t values[64];                                                                             \
        for (int j = 0; j < 64; ++j)                                                                         \
          values[j] = sign * p.values[test::size(group * padded + i + j)];                                   \
        t::i32x16 const v[4] = {t::load(values), t::load(values + 16), t::load(values + 32),                 \
                                t::load(values + 48)};                                                       \
        t::store_terms(v, terms + group * 2 * padded + i, terms + (group * 2 + 1) * padded + i);             \
      }                                                                                                      \
    }                                                                                                        \
  }                                                                                                          \
  template <int Bits, bool Levels, int H>                                                                    \
  std::vector<std::int32_t> sums_of_##target(problem const& p, int k_begin, int k_end) {                     \
    namespace t = host::target_##target;                                                                     \
    test::aligned_bytes const operands(std::int64_t{2} * 128 * p.sets.count * p.plan.k_units);               \
    test::aligned_bytes const terms(static_cast<std::int64_t>(p.values.size()) * 2);                         \
    test::aligned_bytes const widened(p.plan.line_bytes);                                                    \
    std::vector<std::int32_t> sums(test::size(H* p.plan.rows), 77);                                          \
    std::byte const* operand[H];                                                                             \
    std::int32_t* out[H];                                                                                    \
    for (int h = 0; h < H; ++h) {                                                                            \
      auto* const bytes = reinterpret_cast<std::int8_t*>(terms.bytes().data());                              \
      fill_terms_##target(p, h == 0 ? 1 : -1, bytes);                                                        \
      std::byte* const at = operands.bytes().data() + std::int64_t{h} * 128 * p.sets.count * p.plan.k_units; \
      t::build_operand(p.plan, p.sets, bytes, at);                                                           \
      operand[h] = at;                                                                                       \
      out[h] = sums.data() + h * p.plan.rows;                                                                \
    }                                                                                                        \
    host::section_side side{p.plan, p.sets, p.levels};                                                       \
    side.widened = widened.bytes().data();                                                                   \
    std::byte const* const codes = p.spec.bits == 3 ? t::widen(side, p.section.data()) : p.section.data();   \
    host::background none;                                                                                   \
    t::dot_section<Bits, Levels, H>(p.plan, p.sets, codes, operand, out, k_begin, k_end, &p.levels,          \
                                    p.section.data(), none);                                                 \
    CHECK(widened.intact());                                                                                 \
    CHECK(operands.intact());                                                                                \
    return sums;                                                                                             \
  }
KVCRUMB_TEST_SUMS(portable)
#if defined(__x86_64__)
KVCRUMB_BEGIN_TARGET(KVCRUMB_AVX2)
KVCRUMB_TEST_SUMS(avx2)
KVCRUMB_END_TARGET
KVCRUMB_BEGIN_TARGET(KVCRUMB_AVX512_VNNI)
KVCRUMB_TEST_SUMS(avx512_vnni)

//! What a matrix unit computes for the rows of problems[0], problems[1], ..., which differ in their values.
template <int Bits, bool Levels>
std::vector<std::vector<std::int32_t>> sums_of_matrix_unit(host::matrix_unit unit,
                                                           std::vector<problem> const& problems) {
  namespace t = host::target_avx512_vnni;
  problem const& p = problems.front();
  host::section_side side{p.plan, p.sets, p.levels};
  side.levels.count = Levels ? 1 << Bits : 0;
  test::aligned_bytes const widened(p.plan.line_bytes), terms(static_cast<std::int64_t>(p.values.size()) * 2);
  int const blocks = p.sets.distinct_count * host::matrix_depth(p.plan);
  test::aligned_bytes const operand(std::int64_t{blocks} * host::matrix_batch::block_bytes);
  host::matrix_scratch scratch;
  test::aligned_bytes const b(std::int64_t{host::matrix_scratch::blocks(side)} *
                              host::matrix_batch::block_bytes);
  scratch.products = host::matrix_scratch::products_of(side);
  test::aligned_bytes const c(std::int64_t{2} * scratch.products * 1024);
  scratch.b = b.bytes().data();
  scratch.c = reinterpret_cast<std::int32_t*>(c.bytes().data());
  int const rows = static_cast<int>(problems.size());
  std::vector<std::vector<std::int32_t>> sums(problems.size(),
                                              std::vector<std::int32_t>(test::size(p.plan.rows), 77));
  std::vector<std::int32_t*> out;
  for (int h = 0; h < rows; ++h) {
    out.push_back(sums[test::size(h)].data());
    auto* const bytes = reinterpret_cast<std::int8_t*>(terms.bytes().data());
    fill_terms_avx512_vnni(problems[test::size(h)], 1, bytes);
    t::build_matrix_operand(p.plan, p.sets, bytes, h, operand.bytes().data());
  }
  side.widened = widened.bytes().data();
  std::byte const* const codes = p.spec.bits == 3 ? t::widen(side, p.section.data()) : p.section.data();
  host::background none;
  if (unit == host::matrix_unit::amx) t::configure_amx(2 * rows);
  t::matrix_section<Bits, Levels>{
      p.plan,     p.sets,    unit,   rows, 0, host::matrix_depth(p.plan), codes, operand.bytes().data(),
      out.data(), &p.levels, scratch}
      .run({p.section.data(), p.section.data() + 64}, none);
  if (unit == host::matrix_unit::amx) t::release_amx();
  CHECK(widened.intact());
  CHECK(operand.intact());
  CHECK(b.intact());
  CHECK(c.intact());
  return sums;
}
KVCRUMB_END_TARGET

template <int Bits, bool Levels>
void check_matrix_sums(problem const& first, int rows) {
  std::vector<problem> problems;
  std::vector<std::vector<std::int64_t>> expected;
  for (int h = 0; h < rows; ++h) {
    problems.push_back(first);
    for (int i = 0; i < static_cast<int>(first.values.size()); ++i) {
      bool const padding = i % host::padded_columns(first.plan) >= first.plan.columns;
      if ((i + h) % (h + 1) != 0) problems.back().values[test::size(i)] = padding ? 0 : h;
    }
    expected.push_back(expected_sums(problems.back(), Levels, 0, first.plan.k_units));
  }
  for (host::matrix_unit const unit : {host::matrix_unit::emulated, host::matrix_unit::amx}) {
    if (unit == host::matrix_unit::amx && host::request_amx() != status::ok) continue;
    auto const got = sums_of_matrix_unit<Bits, Levels>(unit, problems);
    bool equal = true;
    for (std::size_t h = 0; h < got.size(); ++h) {
      for (std::size_t i = 0; i < got[h].size(); ++i)
        equal = equal && got[h][i] == expected[h][i];
    }
    CAPTURE(static_cast<int>(unit), rows, first.spec.bits, first.spec.shape.head_dim,
            first.spec.shape.tile_tokens, first.spec.group, first.spec.per_channel,
            first.spec.which == side::key, Levels);
    CHECK(equal);
  }
}
#elif defined(__aarch64__)
KVCRUMB_BEGIN_TARGET(KVCRUMB_DOTPROD)
KVCRUMB_TEST_SUMS(neon_dotprod)
KVCRUMB_END_TARGET
#endif

template <int Bits, bool Levels>
void check_sums(problem const& p, int k_begin, int k_end) {
  std::vector<std::int64_t> const expected = expected_sums(p, Levels, k_begin, k_end);
  auto const check = [&](char const* target, std::vector<std::int32_t> const& got) {
    bool equal = true;
    for (std::size_t i = 0; i < expected.size(); ++i)
      equal = equal && got[i] == expected[i];
    CAPTURE(target, p.spec.bits, p.spec.shape.head_dim, p.spec.shape.tile_tokens, p.spec.group,
            p.spec.per_channel, p.spec.which == side::key, Levels, k_begin, k_end);
    CHECK(equal);
  };
  [[maybe_unused]] auto const check_two = [&](char const* target, std::vector<std::int32_t> const& two) {
    check(target, two);
    if (Levels) return;  // the second row has the negated operand, and low = -128 has no negative byte
    bool negated = true;
    for (std::size_t i = 0; i < expected.size(); ++i)
      negated = negated && two[expected.size() + i] == -two[i];
    CHECK(negated);
  };
  check("portable", sums_of_portable<Bits, Levels, 1>(p, k_begin, k_end));
#if defined(__x86_64__)
  if (host::is_available(host::instruction_set::avx2)) {
    check("avx2", sums_of_avx2<Bits, Levels, 1>(p, k_begin, k_end));
    check_two("avx2, two rows", sums_of_avx2<Bits, Levels, 2>(p, k_begin, k_end));
  }
  if (host::is_available(host::instruction_set::avx512_vnni)) {
    check("avx512_vnni", sums_of_avx512_vnni<Bits, Levels, 1>(p, k_begin, k_end));
    check_two("avx512_vnni, two rows", sums_of_avx512_vnni<Bits, Levels, 2>(p, k_begin, k_end));
  }
#elif defined(__aarch64__)
  if (host::is_available(host::instruction_set::neon_dotprod)) {
    check("neon_dotprod", sums_of_neon_dotprod<Bits, Levels, 1>(p, k_begin, k_end));
    check_two("neon_dotprod, two rows", sums_of_neon_dotprod<Bits, Levels, 2>(p, k_begin, k_end));
  }
#endif
}

template <int Bits, bool Levels>
void check_shapes(int stored_bits) {
  unsigned seed = 1;
  for (int const dim : {64, 96, 128, 192, 256}) {
    for (int const tokens : {32, 64, 128}) {
      for (side const which : {side::key, side::value}) {
        for (bool const per_channel : {false, true}) {
          for (int const group : {8, 16, 32, 128}) {
            if (per_channel && group > tokens) continue;
            section_spec const spec{{dim, tokens},
                                    which,
                                    stored_bits,
                                    per_channel,
                                    group < dim || per_channel ? group : dim,
                                    1,
                                    2};
            REQUIRE(fragment::supports(spec) == status::ok);
            ++seed;
            problem const p = make_problem(spec, seed, seed % 7 == 0);
            check_sums<Bits, Levels>(p, 0, p.plan.k_units);
#if defined(__x86_64__)
            if constexpr (Bits > 1) {
              if (host::is_available(host::instruction_set::avx512_vnni))
                check_matrix_sums<Bits, Levels>(p, seed % 5 == 0 ? 8 : 2);
            }
#endif
            if (!p.plan.column_owned && p.plan.k_units > 1) check_sums<Bits, Levels>(p, 1, p.plan.k_units);
          }
        }
      }
    }
  }
}

}  // namespace

TEST_CASE("integer sums of affine codes", "[host]") {
  check_shapes<1, false>(1);
  check_shapes<2, false>(2);
  check_shapes<4, false>(3);
  check_shapes<4, false>(4);
  check_shapes<8, false>(8);
}

TEST_CASE("integer sums of codebooks", "[host]") {
  check_shapes<2, true>(2);
  check_shapes<4, true>(3);
  check_shapes<4, true>(4);
}
