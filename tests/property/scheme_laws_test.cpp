// SPDX-License-Identifier: Apache-2.0
//! @file Laws of every composed scheme, on both sides: chunking, locality, isolation, tracing.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kvcrumb/trace/pair.hpp"
#include "kvcrumb/trace/tracers.hpp"
#include "property/compositions.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {
template <class Scheme>
void fill_with_noise(section_probe<Scheme>& probe, unsigned seed) {
  number_source source(seed);
  for (auto& section : probe.sections) {
    for (std::byte& b : section)
      b = static_cast<std::byte>(source.bits() >> 24);
  }
}

//! Bits outside `mine` that differ.
std::size_t changed_outside(std::vector<std::byte> const& before, std::vector<std::byte> const& after,
                            std::vector<std::uint8_t> const& mine) {
  std::size_t changed = 0;
  for (std::size_t bit = 0; bit < mine.size(); ++bit) {
    auto const of = [&](std::vector<std::byte> const& bytes) {
      return (std::to_integer<unsigned>(bytes[bit / 8]) >> (bit % 8)) & 1u;
    };
    changed += mine[bit] == 0 && of(before) != of(after) ? 1 : 0;
  }
  return changed;
}

template <class Scheme>
constexpr int unit = Scheme::append_tokens;

struct counting_tracer {
  int* calls;
  void on_element(element_coordinate, float, float) { ++*calls; }
};

double relative_l2(std::vector<float> const& actual, std::vector<float> const& expected) {
  double error = 0.0, norm = 0.0;
  for (std::size_t i = 0; i < actual.size(); ++i) {
    double const e = static_cast<double>(actual[i]) - static_cast<double>(expected[i]);
    error += e * e;
    norm += static_cast<double>(expected[i]) * static_cast<double>(expected[i]);
  }
  return std::sqrt(error / norm);
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("a composed scheme models every concept of the waist", "[scheme][laws]",
                        compositions) {
  STATIC_REQUIRE(scheme<TestType>);
  STATIC_REQUIRE(key_scheme<TestType>);
  STATIC_REQUIRE(value_scheme<TestType>);
  STATIC_REQUIRE(decodable<TestType>);
  STATIC_REQUIRE(tile_hooks<TestType>);
  description d;
  TestType::describe(d);
  CHECK(d.length > 10);
  CHECK(!d.overflowed);
}

TEMPLATE_LIST_TEST_CASE("encoding in pieces gives the bytes of encoding at once", "[scheme][laws]",
                        compositions) {
  TestType const scheme = made<TestType>();
  side const which = GENERATE(side::key, side::value);
  for (tile_shape const shape : shapes<TestType>()) {
    int const tokens = shape.tile_tokens;
    auto const rows = key_like_rows(heads, tokens, shape.head_dim, 11);
    section_probe<TestType> at_once(scheme, which, shape, heads), one_by_one(scheme, which, shape, heads),
        backwards(scheme, which, shape, heads), uneven(scheme, which, shape, heads);
    at_once.encode(rows, tokens, 0, tokens, 0);
    constexpr int u = unit<TestType>;
    for (int i = 0; i < tokens; i += u)
      one_by_one.encode(rows, tokens, i, u, i);
    for (int i = tokens - u; i >= 0; i -= u)
      backwards.encode(rows, tokens, i, u, i);
    for (int i = 0, step = u; i < tokens; i += step, step += u) {
      step = std::min(step, tokens - i);
      uneven.encode(rows, tokens, i, step, i);
    }
    CAPTURE(shape.head_dim, shape.tile_tokens);
    CHECK(one_by_one.sections == at_once.sections);
    CHECK(backwards.sections == at_once.sections);
    CHECK(uneven.sections == at_once.sections);
  }
}

TEMPLATE_LIST_TEST_CASE("encoding and clearing touch nothing outside their slots", "[scheme][laws]",
                        compositions) {
  TestType const scheme = made<TestType>();
  side const which = GENERATE(side::key, side::value);
  for (tile_shape const shape : shapes<TestType>()) {
    constexpr int u = unit<TestType>;
    int const tokens = shape.tile_tokens;
    auto const rows = key_like_rows(heads, tokens, shape.head_dim, 12);
    int const first = tokens > 2 * u ? u : 0, count = u == 1 ? 7 : u;
    auto const mine = bits_of_slots<TestType>(which, shape, first, count);
    section_probe<TestType> probe(scheme, which, shape, heads), clean(scheme, which, shape, heads);
    fill_with_noise(probe, 13);
    auto const before = probe.sections;
    probe.encode(rows, tokens, first, count, first);
    clean.encode(rows, tokens, first, count, first);
    CAPTURE(shape.head_dim, shape.tile_tokens);
    for (std::size_t h = 0; h < heads; ++h) {
      CHECK(changed_outside(before[h], probe.sections[h], mine) == 0);
      // Inside, nothing of the old content is left; the slots do not depend on it.
      std::vector<std::uint8_t> others(mine.size());
      std::transform(mine.begin(), mine.end(), others.begin(), [](std::uint8_t m) { return m == 0 ? 1 : 0; });
      CHECK(changed_outside(clean.sections[h], probe.sections[h], others) == 0);
    }
    if constexpr (TestType::append_tokens == 1) {
      auto const written = probe.sections;
      for (std::size_t h = 0; h < heads; ++h)
        scheme.clear(which, shape, first, count, probe.sections[h].data());
      for (std::size_t h = 0; h < heads; ++h) {
        CHECK(changed_outside(written[h], probe.sections[h], mine) == 0);
        scheme.clear(which, shape, first, count, clean.sections[h].data());
        CHECK(std::all_of(clean.sections[h].begin(), clean.sections[h].end(),
                          [](std::byte b) { return b == std::byte{0}; }));
      }
    }
  }
}

TEMPLATE_LIST_TEST_CASE("a section may lie anywhere and be copied anywhere", "[scheme][laws]", compositions) {
  TestType const scheme = made<TestType>();
  side const which = GENERATE(side::key, side::value);
  tile_shape const shape = shapes<TestType>().front();
  int const tokens = shape.tile_tokens;
  auto const rows = key_like_rows(1, tokens, shape.head_dim, 14);
  section_probe<TestType> plain(scheme, which, shape, 1);
  plain.encode(rows, tokens, 0, tokens, 0);
  auto const& section = plain.sections[0];
  std::vector<float> q = number_source(15).bells(static_cast<std::size_t>(shape.head_dim) + 1);
  for (std::size_t const offset : {1u, 2u, 3u, 7u, 15u}) {
    std::vector<std::byte> memory(section.size() + 16, std::byte{0x77});
    std::byte* const moved = memory.data() + offset;
    std::fill_n(moved, section.size(), std::byte{0});
    auto scratch = rows;
    encode_request request;
    request.rows = scratch.data();
    request.sections = &moved;
    request.heads = 1;
    request.count = tokens;
    null_tracer none;
    scheme.encode(which, shape, request, none);
    CHECK(std::memcmp(moved, section.data(), section.size()) == 0);
    CHECK(std::all_of(memory.begin(), memory.begin() + static_cast<std::ptrdiff_t>(offset),
                      [](std::byte b) { return b == std::byte{0x77}; }));
    CHECK(std::all_of(memory.begin() + static_cast<std::ptrdiff_t>(offset + section.size()), memory.end(),
                      [](std::byte b) { return b == std::byte{0x77}; }));
    std::vector<float> row(static_cast<std::size_t>(shape.head_dim));
    scheme.decode_row(which, shape, 0, moved, 3, row.data());
    CHECK(row == plain.decoded_row(0, 3));
    CHECK(scheme.score(shape, q.data(), moved, 5) == scheme.score(shape, q.data(), section.data(), 5));
  }
}

TEMPLATE_LIST_TEST_CASE("what isolated rows hold changes no byte", "[scheme][laws]", compositions) {
  TestType const scheme = made<TestType>();
  side const which = GENERATE(side::key, side::value);
  for (tile_shape const shape : shapes<TestType>()) {
    int const tokens = shape.tile_tokens;
    auto rows = key_like_rows(heads, tokens, shape.head_dim, 16);
    std::vector<std::uint8_t> isolated(static_cast<std::size_t>(heads * tokens), 0);
    for (int head = 0; head < heads; ++head) {
      for (int t = 0; t < tokens; ++t) {
        bool const out =
            (t + 3 * head) % 11 == 2 || (head == 1 && t < tokens / 2 && t % 2 == 0) || (head == 4 && t < 16);
        isolated[static_cast<std::size_t>(head * tokens + t)] =
            out ? static_cast<std::uint8_t>(1 + t % 3) : 0;
      }
    }
    section_probe<TestType> plain(scheme, which, shape, heads), poisoned(scheme, which, shape, heads);
    plain.encode(rows, tokens, 0, tokens, 0, isolated);
    float const strange[4] = {std::numeric_limits<float>::quiet_NaN(), 1e30f,
                              -std::numeric_limits<float>::infinity(), 0.0f};
    for (std::size_t r = 0; r < isolated.size(); ++r) {
      if (isolated[r] == 0) continue;
      for (std::size_t d = 0; d < static_cast<std::size_t>(shape.head_dim); ++d) {
        rows[r * static_cast<std::size_t>(shape.head_dim) + d] = strange[(r + d) % 4];
      }
    }
    poisoned.encode(rows, tokens, 0, tokens, 0, isolated);
    CAPTURE(shape.head_dim, shape.tile_tokens);
    CHECK(poisoned.sections == plain.sections);

    // Parameters are those of the group without them; codes of a per-channel group are that of the others'
    // mean.
    section_spec const s = plain.spec();
    using grouping_type = typename TestType::grouping_type;
    if constexpr (grouping_type::channelwise) {
      int wrong = 0;
      for (int head = 0; head < heads; ++head) {
        for (int group = 0; group < s.groups(); ++group) {
          for (int dim = 0; dim < shape.head_dim; ++dim) {
            std::vector<float> kept;
            for (int t = group * s.group; t < (group + 1) * s.group; ++t) {
              if (isolated[static_cast<std::size_t>(head * tokens + t)] != 0) continue;
              std::vector<float> row(
                  rows.begin() + (static_cast<std::ptrdiff_t>(head) * tokens + t) * shape.head_dim,
                  rows.begin() + (static_cast<std::ptrdiff_t>(head) * tokens + t + 1) * shape.head_dim);
              scheme.transform.forward(head, shape.head_dim, row.data());
              kept.push_back(row[static_cast<std::size_t>(dim)]);
            }
            int const n = static_cast<int>(kept.size());
            group_params const expected =
                n > 0 ? scheme.codec.fit(collect(scheme.codec, kept.data(), n), n) : group_params{};
            wrong += same_params(plain.params(head, dim, group), expected) ? 0 : 1;
            float const fill = n > 0 ? div_rn(tree_sum(kept.data(), n), static_cast<float>(n)) : 0.0f;
            unsigned const code = scheme.codec.encode(fill, expected);
            for (int t = group * s.group; t < (group + 1) * s.group; ++t) {
              if (isolated[static_cast<std::size_t>(head * tokens + t)] == 0) continue;
              wrong += plain.code(head, t, dim) != code ? 1 : 0;
            }
          }
        }
      }
      CHECK(wrong == 0);
    } else {
      int wrong = 0;
      for (int head = 0; head < heads; ++head) {
        for (int t = 0; t < tokens; ++t) {
          if (isolated[static_cast<std::size_t>(head * tokens + t)] == 0) continue;
          for (int group = 0; group < s.groups(); ++group) {
            wrong += same_params(plain.params(head, t, group), group_params{}) ? 0 : 1;
          }
        }
      }
      CHECK(wrong == 0);
    }
    // No flags and flags of zero are the same.
    section_probe<TestType> none(scheme, which, shape, heads), zero(scheme, which, shape, heads);
    auto const clean = key_like_rows(heads, tokens, shape.head_dim, 17);
    none.encode(clean, tokens, 0, tokens, 0);
    zero.encode(clean, tokens, 0, tokens, 0, std::vector<std::uint8_t>(isolated.size(), 0));
    CHECK(none.sections == zero.sections);
  }
}

TEMPLATE_LIST_TEST_CASE("a group of isolated tokens only has zero parameters", "[scheme][laws]",
                        compositions) {
  TestType const scheme = made<TestType>();
  tile_shape const shape = shapes<TestType>().front();
  constexpr int u = unit<TestType>;
  section_probe<TestType> probe(scheme, side::key, shape, heads);
  fill_with_noise(probe, 18);
  auto const rows = key_like_rows(heads, u, shape.head_dim, 19);
  probe.encode(rows, u, 0, u, 0, std::vector<std::uint8_t>(static_cast<std::size_t>(heads * u), 1));
  section_spec const s = probe.spec();
  int wrong = 0;
  for (int head = 0; head < heads; ++head) {
    for (int owner = 0; owner < (s.per_channel ? shape.head_dim : 1); ++owner) {
      wrong += same_params(probe.params(head, owner, 0), group_params{}) ? 0 : 1;
    }
    for (float const x : probe.decoded_row(head, 0))
      wrong += std::isfinite(x) ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEMPLATE_LIST_TEST_CASE("tracing changes no byte and sees what was stored", "[scheme][laws][trace]",
                        compositions) {
  TestType const scheme = made<TestType>();
  side const which = GENERATE(side::key, side::value);
  tile_shape const shape = shapes<TestType>().front();
  int const tokens = shape.tile_tokens;
  auto const rows = key_like_rows(heads, tokens, shape.head_dim, 20);
  std::vector<std::uint8_t> isolated(static_cast<std::size_t>(heads * tokens), 0);
  for (std::size_t i = 0; i < isolated.size(); i += 13)
    isolated[i] = 1;
  section_probe<TestType> silent(scheme, which, shape, heads), errors(scheme, which, shape, heads),
      maxima(scheme, which, shape, heads), norms(scheme, which, shape, heads),
      pair(scheme, which, shape, heads);
  silent.encode(rows, tokens, 0, tokens, 0, isolated);

  error_tracer error;
  errors.encode(rows, tokens, 0, tokens, 0, isolated, error);
  std::vector<float> largest(static_cast<std::size_t>(heads * shape.head_dim), 0.0f);
  channel_absmax_tracer absmax{which, largest.data()};
  maxima.encode(rows, tokens, 0, tokens, 0, isolated, absmax);
  std::vector<float> l1(static_cast<std::size_t>(heads * 2000), -1.0f);
  row_norm_tracer norm{which, l1.data(), 2000};
  norms.encode(rows, tokens, 0, tokens, 0, isolated, norm);
  int calls = 0;
  counting_tracer counter{&calls};
  tracer_pair<counting_tracer, row_norm_tracer> both{counter, norm};
  pair.encode(rows, tokens, 0, tokens, 0, isolated, both);

  CHECK(errors.sections == silent.sections);
  CHECK(maxima.sections == silent.sections);
  CHECK(norms.sections == silent.sections);
  CHECK(pair.sections == silent.sections);

  auto const out = std::count(isolated.begin(), isolated.end(), 1);
  CHECK(calls == (heads * tokens - out) * shape.head_dim);
  CHECK(error.count[which == side::key ? 0 : 1] == calls);
  CHECK(error.count[which == side::key ? 1 : 0] == 0);
  // The error that was seen is the error of the stored bytes. Transforms keep lengths but for the means.
  double seen = error.error_squares[which == side::key ? 0 : 1], stored = 0.0;
  for (int head = 0; head < heads; ++head) {
    for (int t = 0; t < tokens; ++t) {
      if (isolated[static_cast<std::size_t>(head * tokens + t)] != 0) continue;
      auto const row = silent.decoded_row(head, t);
      for (int d = 0; d < shape.head_dim; ++d) {
        double const e =
            static_cast<double>(row[static_cast<std::size_t>(d)]) -
            static_cast<double>(rows[static_cast<std::size_t>((head * tokens + t) * shape.head_dim + d)]);
        stored += e * e;
      }
    }
  }
  CHECK(seen == Approx(stored).epsilon(2e-3).margin(1e-6));
}

TEMPLATE_LIST_TEST_CASE("every code and parameter is the codec's answer for its group", "[scheme][laws]",
                        compositions) {
  TestType const scheme = made<TestType>();
  side const which = GENERATE(side::key, side::value);
  using grouping_type = typename TestType::grouping_type;
  for (tile_shape const shape : shapes<TestType>()) {
    int const tokens = shape.tile_tokens, width = shape.head_dim;
    auto const rows = key_like_rows(heads, tokens, width, 21);
    section_probe<TestType> probe(scheme, which, shape, heads);
    probe.encode(rows, tokens, 0, tokens, 0);
    auto transformed = rows;
    for (int r = 0; r < heads * tokens; ++r)
      scheme.transform.forward(r / tokens, width, transformed.data() + r * width);
    auto const at = [&](int head, int t, int dim) {
      return transformed[static_cast<std::size_t>((head * tokens + t) * width + dim)];
    };
    section_spec const s = probe.spec();
    int wrong = 0;
    for (int head = 0; head < heads; ++head) {
      for (int owner = 0; owner < s.owners(); ++owner) {
        for (int group = 0; group < s.groups(); ++group) {
          std::vector<float> x;
          int const begin = group * grouping_type::group_length(width);
          int const end = std::min(begin + grouping_type::group_length(width),
                                   grouping_type::channelwise ? tokens : width);
          int first_head = head, last_head = head;
          if (!grouping_type::channelwise && grouping_type::head_span(width) > 1) {
            first_head = head / grouping_type::head_span(width) * grouping_type::head_span(width);
            last_head = std::min(first_head + grouping_type::head_span(width), heads) - 1;
          }
          for (int h = first_head; h <= last_head; ++h) {
            for (int i = begin; i < end; ++i)
              x.push_back(grouping_type::channelwise ? at(h, i, owner) : at(h, owner, i));
          }
          int const n = static_cast<int>(x.size());
          group_params const p = scheme.codec.fit(collect(scheme.codec, x.data(), n), n);
          wrong += same_params(probe.params(head, owner, group), p) ? 0 : 1;
          for (int i = begin; i < end; ++i) {
            int const t = grouping_type::channelwise ? i : owner,
                      dim = grouping_type::channelwise ? owner : i;
            wrong += probe.code(head, t, dim) != scheme.codec.encode(at(head, t, dim), p) ? 1 : 0;
          }
        }
      }
    }
    CAPTURE(width, tokens);
    CHECK(wrong == 0);
    // And it decodes to something near the rows. Loose: a lost offset, head or channel is far beyond.
    double worst = 0.0;
    double const bounds[] = {0.0, 9.0, 9.0, 0.6, 0.3, 0.1, 0.1, 0.1, 0.06};
    for (int head = 0; head < heads; ++head) {
      std::vector<float> decoded;
      for (int t = 0; t < tokens; ++t) {
        auto const row = probe.decoded_row(head, t);
        decoded.insert(decoded.end(), row.begin(), row.end());
      }
      auto const first = rows.begin() + static_cast<std::ptrdiff_t>(head) * tokens * width;
      worst = std::max(worst, relative_l2(decoded, std::vector<float>(first, first + tokens * width)));
    }
    CHECK(worst < (TestType::bits == 16 ? 5e-4 : bounds[TestType::bits]));
  }
}

TEMPLATE_LIST_TEST_CASE("a row with a NaN poisons its own groups only", "[scheme][laws]", compositions) {
  TestType const scheme = made<TestType>();
  using grouping_type = typename TestType::grouping_type;
  bool const mixes = !std::is_same_v<typename TestType::transform_type, identity> &&
                     !std::is_same_v<typename TestType::transform_type, mean_center>;
  tile_shape const shape = shapes<TestType>().front();
  int const tokens = shape.tile_tokens;
  auto rows = key_like_rows(heads, tokens, shape.head_dim, 27);
  section_probe<TestType> clean(scheme, side::key, shape, heads), dirty(scheme, side::key, shape, heads);
  clean.encode(rows, tokens, 0, tokens, 0);
  int const bad_head = 2, bad_token = 9, bad_dim = 17;
  rows[static_cast<std::size_t>((bad_head * tokens + bad_token) * shape.head_dim + bad_dim)] =
      GENERATE(std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity());
  dirty.encode(rows, tokens, 0, tokens, 0);
  section_spec const s = clean.spec();
  int const span = s.per_channel ? 1 : grouping_type::head_span(shape.head_dim);
  int wrong = 0, poisoned = 0;
  for (int head = 0; head < heads; ++head) {
    for (int t = 0; t < tokens; ++t) {
      for (int dim = 0; dim < shape.head_dim; ++dim) {
        bool hit = head / span == bad_head / span;
        if (s.per_channel) {
          hit = hit && t / s.group == bad_token / s.group && (mixes || dim == bad_dim);
        } else {
          hit = hit && t == bad_token && (mixes || span > 1 || dim / s.group == bad_dim / s.group);
          if (s.planes == 0) hit = hit && dim == bad_dim;
        }
        if (hit) {
          ++poisoned;
          continue;
        }
        int const owner = s.per_channel ? dim : t, group = (s.per_channel ? t : dim) / s.group;
        wrong += clean.code(head, t, dim) != dirty.code(head, t, dim) ? 1 : 0;
        wrong += same_params(clean.params(head, owner, group), dirty.params(head, owner, group)) ? 0 : 1;
      }
    }
  }
  CHECK(wrong == 0);
  CHECK(poisoned > 0);
  if (s.planes > 0) {
    int const owner = s.per_channel ? bad_dim : bad_token,
              group = (s.per_channel ? bad_token : bad_dim) / s.group;
    CHECK(std::isnan(dirty.params(bad_head, owner, group).value[0]));
  }
}
