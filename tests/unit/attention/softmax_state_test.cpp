// SPDX-License-Identifier: Apache-2.0
//! @file softmax_state: identity, commutativity, associativity, and merge_outputs.
#include "support/cache_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

namespace {

constexpr int width = 5;

//! State and un-normalized output of a few logits with random values.
struct accumulated {
  softmax_state state;
  std::vector<float> o = std::vector<float>(width, 0.0f);
};

accumulated accumulate(std::vector<float> const& logits, unsigned seed) {
  accumulated a;
  std::mt19937_64 engine{seed};
  std::normal_distribution<float> normal;
  for (float const x : logits) {
    float const factor = a.state.raise(x);
    float const weight = std::exp(x - a.state.max);
    for (float& y : a.o)
      y = y * factor + weight * normal(engine);
    a.state.sum += weight;
  }
  return a;
}

accumulated merged(accumulated a, accumulated const& b) {
  merge(a.state, a.o.data(), b.state, b.o.data(), width);
  return a;
}

//! Output row and log-sum-exp within n roundings of each other, relative to the largest component.
void check_close(accumulated const& a, accumulated const& b, double roundings = 16.0) {
  double const u = std::ldexp(1.0, -24);
  double const scale = std::max(1.0, std::fabs(static_cast<double>(b.state.log_sum_exp())));
  CHECK(std::fabs(static_cast<double>(a.state.log_sum_exp() - b.state.log_sum_exp())) <=
        roundings * u * scale);
  for (std::size_t i = 0; i < width; ++i) {
    // exp amplifies the rounding of max differences: |x| u of it
    CHECK(std::fabs(static_cast<double>(a.o[i] / a.state.sum - b.o[i] / b.state.sum)) <=
          8.0 * roundings * u * scale);
  }
}

std::vector<float> with_garbage() { return std::vector<float>(width, std::nanf("")); }

}  // namespace

TEST_CASE("the default state is the identity of merge", "[softmax]") {
  softmax_state const empty;
  CHECK(empty.empty());
  CHECK(empty.log_sum_exp() == negative_infinity);
  accumulated const a = accumulate({0.5f, -3.0f, 2.0f}, 1);
  accumulated const right = merged(a, {});
  CHECK(right.state.max == a.state.max);
  CHECK(right.state.sum == a.state.sum);
  CHECK(test::same_bits(right.o, a.o));
  accumulated const left = merged({}, a);
  CHECK(left.state.max == a.state.max);
  CHECK(left.state.sum == a.state.sum);
  CHECK(test::same_bits(left.o, a.o));
  accumulated const both = merged({}, {});
  CHECK(both.state.empty());
  CHECK(test::same_bits(both.o, std::vector<float>(width, 0.0f)));
}

TEST_CASE("an empty right side is not even read", "[softmax]") {
  accumulated a = accumulate({1.0f}, 1);
  std::vector<float> const before = a.o, garbage = with_garbage();
  merge(a.state, a.o.data(), softmax_state{}, garbage.data(), width);
  CHECK(test::same_bits(a.o, before));
}

TEST_CASE("merge is commutative and associative", "[softmax]") {
  std::vector<std::vector<float>> const parts{{0.0f},  {5.0f, -2.0f, 1.0f}, {-80.0f, -81.0f}, {},
                                              {88.0f}, {-3.0e4f, 2.0f}};
  for (std::size_t i = 0; i < parts.size(); ++i) {
    accumulated const a = accumulate(parts[i], 3);
    for (std::size_t j = 0; j < parts.size(); ++j) {
      accumulated const b = accumulate(parts[j], 4);
      accumulated const ab = merged(a, b), ba = merged(b, a);
      CHECK(ab.state.max == ba.state.max);
      CHECK(ab.state.sum == ba.state.sum);
      for (std::size_t d = 0; d < width; ++d)
        CHECK(ab.o[d] == ba.o[d]);
      for (auto const& third : parts) {
        accumulated const c = accumulate(third, 5);
        accumulated const left = merged(merged(a, b), c), right = merged(a, merged(b, c));
        if (left.state.empty()) {
          CHECK(right.state.empty());
        } else {
          check_close(left, right);
        }
      }
    }
  }
}

TEST_CASE("a state of all logits equals the merge of its parts and the definition", "[softmax]") {
  std::vector<float> const logits{3.0f, -1.0f, 7.5f, 7.5f, -40.0f, 0.25f};
  accumulated const whole = accumulate(logits, 9);
  double sum = 0.0;
  for (float const x : logits)
    sum += std::exp(static_cast<double>(x));
  CHECK(std::fabs(static_cast<double>(whole.state.log_sum_exp()) - std::log(sum)) <=
        16.0 * std::ldexp(1.0, -24) * 9.0);
  CHECK(whole.state.max == 7.5f);
}

TEST_CASE("raise to a smaller maximum changes nothing", "[softmax]") {
  softmax_state s{2.0f, 3.0f};
  CHECK(s.raise(1.0f) == 1.0f);
  CHECK(s.raise(2.0f) == 1.0f);
  CHECK(s.raise(negative_infinity) == 1.0f);
  CHECK((s.max == 2.0f && s.sum == 3.0f));
  CHECK(s.raise(4.0f) == std::exp(-2.0f));
  CHECK((s.max == 4.0f && s.sum == 3.0f * std::exp(-2.0f)));
  softmax_state fresh;
  CHECK(fresh.raise(-1.0e30f) == 0.0f);
  CHECK((fresh.max == -1.0e30f && fresh.sum == 0.0f && fresh.empty()));
}

TEST_CASE("extreme logits neither overflow nor vanish", "[softmax]") {
  accumulated const high = accumulate({3.0e38f, 2.9e38f}, 1), low = accumulate({-3.0e38f}, 2);
  CHECK(high.state.log_sum_exp() == 3.0e38f);
  CHECK(low.state.log_sum_exp() == -3.0e38f);
  CHECK(merged(high, low).state.log_sum_exp() == 3.0e38f);
  CHECK(test::same_bits(merged(low, high).o, high.o));
}

TEST_CASE("a NaN logit stays visible", "[softmax]") {
  softmax_state s{2.0f, 3.0f};
  s.raise(std::nanf(""));
  CHECK(std::isnan(s.log_sum_exp()));
  CHECK_FALSE(s.empty());
}

TEST_CASE("merge_outputs joins finished results", "[softmax]") {
  accumulated const a = accumulate({1.0f, 2.0f, -3.0f}, 3), b = accumulate({4.0f, 0.0f}, 4),
                    ab = merged(a, b);
  auto const finished = [](accumulated const& x) {
    std::vector<float> o = x.o;
    for (float& y : o)
      y /= x.state.sum;
    return o;
  };
  std::vector<float> o = finished(a);
  std::vector<float> const o_b = finished(b), expected = finished(ab);
  float lse = a.state.log_sum_exp();
  merge_outputs(o.data(), lse, o_b.data(), b.state.log_sum_exp(), width);
  double const u = std::ldexp(1.0, -24);
  CHECK(std::fabs(static_cast<double>(lse - ab.state.log_sum_exp())) <= 16.0 * u * 5.0);
  for (std::size_t i = 0; i < width; ++i)
    CHECK(std::fabs(static_cast<double>(o[i] - expected[i])) <= 64.0 * u * 3.0);

  SECTION("an empty side changes nothing and is not read") {
    std::vector<float> kept = o;
    std::vector<float> const garbage = with_garbage();
    float const before = lse;
    merge_outputs(kept.data(), lse, garbage.data(), negative_infinity, width);
    CHECK((lse == before && test::same_bits(kept, o)));
    std::vector<float> target = garbage;
    float empty = negative_infinity;
    merge_outputs(target.data(), empty, o.data(), before, width);
    CHECK((empty == before && test::same_bits(target, o)));
    float both = negative_infinity;
    merge_outputs(target.data(), both, garbage.data(), negative_infinity, width);
    CHECK((both == negative_infinity && test::same_bits(target, o)));
  }
  SECTION("equal halves: the mean and ln 2 more") {
    std::vector<float> left(width, 1.0f), right(width, 3.0f);
    float l = 100.0f;
    merge_outputs(left.data(), l, right.data(), 100.0f, width);
    CHECK(left == std::vector<float>(width, 2.0f));
    CHECK(l == 100.0f + std::log(2.0f));
  }
  SECTION("far apart: no overflow") {
    std::vector<float> left(width, 1.0f), right(width, 3.0f);
    float l = -1000.0f;
    merge_outputs(left.data(), l, right.data(), 1000.0f, width);
    CHECK(left == right);
    CHECK(l == 1000.0f);
  }
}
