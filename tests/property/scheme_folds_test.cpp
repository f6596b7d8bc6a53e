// SPDX-License-Identifier: Apache-2.0
//! @file Scores and weighted sums of every composed scheme: one by one, by tile, and from decoded rows.
#include <algorithm>
#include <cmath>
#include <vector>

#include "property/compositions.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

TEMPLATE_LIST_TEST_CASE("scores equal dot products with decoded rows, one by one and by tile",
                        "[scheme][laws]", compositions) {
  TestType const scheme = made<TestType>();
  for (tile_shape const shape : shapes<TestType>()) {
    int const tokens = shape.tile_tokens, width = shape.head_dim;
    auto const rows = key_like_rows(heads, tokens, width, 22);
    section_probe<TestType> probe(scheme, side::key, shape, heads);
    probe.encode(rows, tokens, 0, tokens, 0);
    std::vector<float> work(static_cast<std::size_t>(scheme.tile_floats(side::key, shape)) + 8, 1234.5f);
    std::vector<float> scores(static_cast<std::size_t>(tokens));
    auto const q = number_source(23).bells(static_cast<std::size_t>(width), 0.5f);
    std::vector<float> prepared(static_cast<std::size_t>(TestType::query_floats(width)));
    for (int head : {0, 3}) {
      std::byte const* section = probe.sections[static_cast<std::size_t>(head)].data();
      scheme.prepare_query(head, width, q.data(), prepared.data());
      scheme.load_tile(side::key, shape, section, work.data());
      for (int repeat = 0; repeat < 2; ++repeat)
        scheme.score_tile(shape, work.data(), prepared.data(), scores.data());
      double worst_tile = 0.0, worst_reference = 0.0;
      for (int t = 0; t < tokens; ++t) {
        auto const row = probe.decoded_row(head, t);
        double dot_product = 0.0, size = 1e-3;
        for (std::size_t d = 0; d < row.size(); ++d) {
          double const term = static_cast<double>(q[d]) * static_cast<double>(row[d]);
          dot_product += term;
          size += std::fabs(term);
        }
        double const one = static_cast<double>(scheme.score(shape, prepared.data(), section, t));
        worst_tile = std::max(
            worst_tile, std::fabs(one - static_cast<double>(scores[static_cast<std::size_t>(t)])) / size);
        worst_reference = std::max(worst_reference, std::fabs(one - dot_product) / size);
      }
      CAPTURE(width, tokens, head);
      CHECK(worst_tile < 1e-5);
      CHECK(worst_reference < 1e-5);
      for (std::size_t i = work.size() - 8; i < work.size(); ++i)
        CHECK(work[i] == 1234.5f);
    }
  }
}

TEMPLATE_LIST_TEST_CASE("weighted sums equal those of decoded rows, one by one and by tile", "[scheme][laws]",
                        compositions) {
  TestType const scheme = made<TestType>();
  for (tile_shape const shape : shapes<TestType>()) {
    int const tokens = shape.tile_tokens, width = shape.head_dim;
    auto const rows = key_like_rows(heads, tokens, width, 24);
    section_probe<TestType> probe(scheme, side::value, shape, heads);
    probe.encode(rows, tokens, 0, tokens, 0);
    number_source source(25);
    std::vector<float> weights(static_cast<std::size_t>(tokens));
    float total = 0.0f;
    for (float& w : weights) {
      w = source.bits() % 4 == 0 ? 0.0f : static_cast<float>(source.bits() >> 8) * 0x1p-28f;
      total += w;
    }
    std::vector<float> work(static_cast<std::size_t>(scheme.tile_floats(side::value, shape)));
    for (int head : {0, 4}) {
      auto const n = static_cast<std::size_t>(width);
      std::byte const* section = probe.sections[static_cast<std::size_t>(head)].data();
      std::vector<float> one(n, 0.0f), tile(n, 0.0f);
      std::vector<double> expected(n, 0.0), size(n, 1e-3);
      for (int t = 0; t < tokens; ++t) {
        float const w = weights[static_cast<std::size_t>(t)];
        scheme.accumulate(shape, w, section, t, one.data());
        auto const row = probe.decoded_row(head, t);
        for (std::size_t d = 0; d < n; ++d) {
          expected[d] += static_cast<double>(w) * static_cast<double>(row[d]);
          size[d] += std::fabs(static_cast<double>(w) * static_cast<double>(row[d]));
        }
      }
      scheme.load_tile(side::value, shape, section, work.data());
      scheme.accumulate_tile(shape, work.data(), weights.data(), tile.data());
      scheme.finish(head, width, one.data(), total);
      scheme.finish(head, width, tile.data(), total);
      double largest = 0.0, worst_one = 0.0, worst_tile = 0.0;
      for (double const x : size)
        largest = std::max(largest, x);  // a rotation mixes the channels
      for (std::size_t d = 0; d < n; ++d) {
        worst_one = std::max(worst_one, std::fabs(static_cast<double>(one[d]) - expected[d]) / largest);
        worst_tile = std::max(
            worst_tile, std::fabs(static_cast<double>(tile[d]) - static_cast<double>(one[d])) / largest);
      }
      CAPTURE(width, tokens, head);
      CHECK(worst_one < 1e-5);
      CHECK(worst_tile < 1e-5);
    }
  }
}

TEMPLATE_LIST_TEST_CASE("weights that cancel still leave a weighted sum", "[scheme][laws]", compositions) {
  TestType const scheme = made<TestType>();
  tile_shape const shape = shapes<TestType>().front();
  int const tokens = shape.tile_tokens, width = shape.head_dim;
  auto const rows = key_like_rows(1, tokens, width, 28);
  section_probe<TestType> probe(scheme, side::value, shape, 1);
  probe.encode(rows, tokens, 0, tokens, 0);
  std::vector<float> weights(static_cast<std::size_t>(tokens), 0.0f);
  weights[2] = 1.0f;
  weights[5] = -1.0f;
  auto const n = static_cast<std::size_t>(width);
  std::vector<float> work(static_cast<std::size_t>(scheme.tile_floats(side::value, shape))), one(n, 0.0f),
      tile(n, 0.0f);
  scheme.load_tile(side::value, shape, probe.sections[0].data(), work.data());
  scheme.accumulate_tile(shape, work.data(), weights.data(), tile.data());
  scheme.accumulate(shape, 1.0f, probe.sections[0].data(), 2, one.data());
  scheme.accumulate(shape, -1.0f, probe.sections[0].data(), 5, one.data());
  double error = 0.0, size = 0.0;
  for (std::size_t d = 0; d < n; ++d) {
    error = std::max(error, std::fabs(static_cast<double>(one[d]) - static_cast<double>(tile[d])));
    size = std::max(size, std::fabs(static_cast<double>(one[d])));
  }
  CHECK(size > 0.0);
  CHECK(error < 1e-4 * size);
}

TEMPLATE_LIST_TEST_CASE("slots of weight zero may hold anything", "[scheme][laws]", compositions) {
  // Poisoned slots: every byte of their codes and parameters is 0xFF.
  if constexpr (!TestType::grouping_type::channelwise) {
    TestType const scheme = made<TestType>();
    tile_shape const shape = shapes<TestType>().front();
    int const tokens = shape.tile_tokens, width = shape.head_dim;
    auto const rows = key_like_rows(1, tokens, width, 26);
    section_probe<TestType> clean(scheme, side::value, shape, 1), dirty(scheme, side::value, shape, 1);
    clean.encode(rows, tokens, 0, tokens, 0);
    dirty.sections = clean.sections;
    auto const poisoned = bits_of_slots<TestType>(side::value, shape, 3, 2);
    for (std::size_t bit = 0; bit < poisoned.size(); ++bit) {
      if (poisoned[bit] != 0) dirty.sections[0][bit / 8] |= static_cast<std::byte>(1u << (bit % 8));
    }
    std::vector<float> weights(static_cast<std::size_t>(tokens), 0.25f);
    weights[3] = weights[4] = 0.0f;
    auto const sum = [&](section_probe<TestType> const& probe) {
      std::vector<float> work(static_cast<std::size_t>(scheme.tile_floats(side::value, shape)));
      std::vector<float> o(static_cast<std::size_t>(width), 0.0f);
      scheme.load_tile(side::value, shape, probe.sections[0].data(), work.data());
      scheme.accumulate_tile(shape, work.data(), weights.data(), o.data());
      return o;
    };
    CHECK(sum(dirty) == sum(clean));
  }
}
