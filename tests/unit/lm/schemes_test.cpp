// SPDX-License-Identifier: Apache-2.0
//! @file The engine on every scheme's packed cache against attention in double precision on what the cache
//! decodes to.
#include "support/catch.hpp"

#include <memory>

#include <kvcrumb/reference/attention.hpp>

#include "choose_bits.hpp"
#include "tiny_model.hpp"

namespace {

using namespace kvcrumb_lm;
using namespace kvcrumb_lm::test;

// Attention over the decoded rows of another cache, in double.
std::vector<double> exact_attention(kv_layer const& cache, row_view q, int query_heads, int queries,
                                    int kv_heads, int width) {
  std::int64_t const n = cache.tokens();
  std::vector<double> keys, values, asked;
  std::vector<std::int64_t> key_positions, query_positions;
  std::vector<float> key(static_cast<std::size_t>(width)), value(key.size());
  for (int head = 0; head < kv_heads; ++head) {
    for (std::int64_t t = 0; t < n; ++t) {
      REQUIRE(cache.read(head, t, key.data(), value.data()) == kvcrumb::status::ok);
      keys.insert(keys.end(), key.begin(), key.end());
      values.insert(values.end(), value.begin(), value.end());
      if (head == 0) key_positions.push_back(t);
    }
  }
  for (int head = 0; head < query_heads; ++head) {
    for (int i = 0; i < queries; ++i) {
      asked.insert(asked.end(), q.row(head, i), q.row(head, i) + width);
      if (head == 0) query_positions.push_back(n - queries + i);
    }
  }
  kvcrumb::reference::grouped_attention_input input;
  input.queries = asked;
  input.keys = keys;
  input.values = values;
  input.query_positions = query_positions;
  input.key_positions = key_positions;
  input.query_heads = static_cast<std::size_t>(query_heads);
  input.kv_heads = static_cast<std::size_t>(kv_heads);
  input.key_dim = input.value_dim = static_cast<std::size_t>(width);
  kvcrumb::reference::attention_arguments arguments;
  arguments.softmax_scale = 1.0 / std::sqrt(static_cast<double>(width));
  return kvcrumb::reference::attend_grouped(input, arguments).output;
}

// The cache of a scheme that answers queries by the reference, and notes how far packed attention is from it.
class reference_layer final : public kv_layer {
 public:
  reference_layer(std::unique_ptr<kv_layer> cache, model_config const& c) : cache_(std::move(cache)), c_(c) {}
  std::unique_ptr<kv_layer> fresh() const override {
    return std::make_unique<reference_layer>(cache_->fresh(), c_);
  }
  kvcrumb::status append(row_view k, row_view v, std::int64_t n) override { return cache_->append(k, v, n); }
  kvcrumb::status attend(row_view q, int heads, int queries, kvcrumb::rows_view<float> o,
                         std::int64_t window) override {
    if (auto const s = cache_->attend(q, heads, queries, o, window); s != kvcrumb::status::ok) return s;
    auto const exact = exact_attention(*cache_, q, heads, queries, c_.kv_heads, c_.head_dim);
    double error = 0.0, norm = 0.0;
    for (std::size_t i = 0; i < exact.size(); ++i) {
      auto const row = static_cast<std::int64_t>(i) / c_.head_dim;
      float& x = o.row(row / queries, row % queries)[static_cast<std::int64_t>(i) % c_.head_dim];
      error += (static_cast<double>(x) - exact[i]) * (static_cast<double>(x) - exact[i]);
      norm += exact[i] * exact[i];
      x = static_cast<float>(exact[i]);
    }
    largest = std::max(largest, std::sqrt(error / norm));
    return kvcrumb::status::ok;
  }
  std::int64_t tokens() const override { return cache_->tokens(); }
  std::int64_t bytes() const override { return cache_->bytes(); }
  bool readable() const override { return cache_->readable(); }
  kvcrumb::status read(int head, std::int64_t t, float* k, float* v) const override {
    return cache_->read(head, t, k, v);
  }

  double largest = 0.0;  //!< relative L2 error of a call

 private:
  std::unique_ptr<kv_layer> cache_;
  model_config c_;
};

}  // namespace

TEST_CASE("logits on the packed cache of every scheme equal those of exact attention on what it decodes to") {
  // Keys and values of the first layer do not depend on attention, so both runs encode the same rows, and
  // rounding cannot flip a code in one of them. 150 tokens: one group of 32 left the window at least.
  // Attention is off by at most 1e-5 relative (docs/numerics.md); logits are sums of 48 normed values of size
  // 1 times weights of size 1, up to some 30, and the norms and the MLP pass an error on with a factor of the
  // order of 1: 1e-3 has a margin of ten.
  model const m = tiny_model(1);
  auto const tokens = random_tokens(150);
  int checked = 0;
  for (scheme_entry const& e : known_schemes()) {
    for (std::size_t const chunk : {std::size_t{1}, std::size_t{13}}) {
      std::string const name(e.name);
      CAPTURE(name, chunk);
      sequence packed = sequence_of(m, name, tokens), exact;
      if (!packed.layers.front()->readable()) continue;
      exact.layers.push_back(std::make_unique<reference_layer>(packed.layers.front()->fresh(), m.config));
      auto const a = logits_of(m, packed, tokens, chunk), b = logits_of(m, exact, tokens, chunk);
      CHECK(largest_difference(a, b) < 1e-3);
      CHECK(static_cast<reference_layer const&>(*exact.layers.front()).largest < 1e-5);
      CHECK(packed.bytes() == exact.bytes());
      ++checked;
    }
  }
  CHECK(checked >= 2 * 31);  // qjl and turboquant_prod keep sketches of keys, which cannot be decoded
}

TEST_CASE("attention of every layer of a deeper model agrees with the reference, outlier tracing included") {
  model const m = tiny_model(3);
  auto const tokens = random_tokens(150, 8);
  for (std::string const name :
       {"ott2:trace=0,pool=2", "crumb2:trace=1", "kivi2:window=0", "q8_0:window=40", "fp32"}) {
    CAPTURE(name);
    sequence of = sequence_of(m, name, tokens);
    for (auto& layer : of.layers)
      layer = std::make_unique<reference_layer>(std::move(layer), m.config);
    logits_of(m, of, tokens, 9);
    for (auto const& layer : of.layers)
      CHECK(static_cast<reference_layer const&>(*layer).largest < 1e-5);
  }
}

TEST_CASE("heads of 128 channels run in groups of 128 tokens") {
  model const m = tiny_model(1, 6, 128);
  auto const tokens = random_tokens(330);
  for (scheme_entry const& e : known_schemes()) {
    std::string const name(e.name);
    CAPTURE(name);
    sequence of = sequence_of(m, e.name == "asymkv" ? name : name + ":group=128", tokens);
    auto const logits = logits_of(m, of, tokens, 64);
    CHECK(std::all_of(logits.begin(), logits.end(), [](float x) { return std::isfinite(x); }));
    double const bits = 8.0 * static_cast<double>(of.bytes()) / (2.0 * 330.0 * m.config.kv_width());
    CHECK(bits > 1.0);
    CHECK((e.name == "fp32" ? bits == 32.0 : e.name == "fp16" ? bits == 16.0 : bits < 17.0));
  }
}

TEST_CASE("the chunks in which a prompt is read change nothing that the cache holds") {
  // First layer: its rows are the same for any chunks.
  model const m = tiny_model(1);
  auto const tokens = random_tokens(150);
  for (scheme_entry const& e : known_schemes()) {
    std::string const name(e.name);
    CAPTURE(name);
    if (name == "qaq") continue;  // decides by the attention that it has seen until the next chunk comes
    sequence one = sequence_of(m, name, tokens), other = sequence_of(m, name, tokens);
    logits_of(m, one, tokens, 1);
    logits_of(m, other, tokens, 37);
    CHECK(one.bytes() == other.bytes());
    if (!one.layers.front()->readable()) continue;
    std::vector<float> k(64), v(64), k2(64), v2(64);
    bool same = true;
    for (int head = 0; head < 2; ++head) {
      for (std::int64_t t = 0; t < 150; ++t) {
        REQUIRE(one.layers.front()->read(head, t, k.data(), v.data()) == kvcrumb::status::ok);
        REQUIRE(other.layers.front()->read(head, t, k2.data(), v2.data()) == kvcrumb::status::ok);
        same = same && k == k2 && v == v2;
      }
    }
    CHECK(same);
  }
}

TEST_CASE("chunks do not change the logits where a query finds the same rows stored") {
  // fp16 and fp32 store every row at once; row-independent codes without a window too. Deeper layers see
  // inputs that differ by rounding, so codes may differ there: one layer for these.
  auto const tokens = random_tokens(100);
  model const deep = tiny_model(3), shallow = tiny_model(1);
  for (std::string const name :
       {"fp16", "fp32", "q8_0", "qserve4", "nqkv4", "turboquant2", "turboquant_prod"}) {
    CAPTURE(name);
    model const& m = name.substr(0, 2) == "fp" ? deep : shallow;
    sequence reference = sequence_of(m, name, tokens);
    auto const one = logits_of(m, reference, tokens, 1);
    for (std::size_t const chunk : {std::size_t{7}, std::size_t{32}, std::size_t{100}}) {
      CAPTURE(chunk);
      sequence of = sequence_of(m, name, tokens);
      // fp16 rounds rows that differ in the last bit of fp32 to other halves: 2^-11 of some values
      CHECK(largest_difference(one, logits_of(m, of, tokens, chunk)) < (name == "fp16" ? 2e-2 : 1e-3));
    }
  }
}

TEST_CASE("a query sees the exact tail of the cache as it is when its chunk has been appended") {
  // kivi2 in chunks of one: the newest 32 tokens are exact; the first token of a chunk of 128 finds its own
  // group encoded. So the logits differ, and this is what --chunk is about.
  model const m = tiny_model(1);
  auto const tokens = random_tokens(192);
  sequence one = sequence_of(m, "kivi2:window=0", tokens), whole = sequence_of(m, "kivi2:window=0", tokens);
  CHECK(largest_difference(logits_of(m, one, tokens, 1), logits_of(m, whole, tokens, 192)) > 1e-2);
}

TEST_CASE("ott2 is kivi2 in the same window, but for the tokens that it traces") {
  model const m = tiny_model(1);
  auto const tokens = random_tokens(150);
  sequence kivi = sequence_of(m, "kivi2", tokens), ott = sequence_of(m, "ott2:trace=0", tokens);
  sequence none = sequence_of(m, "ott2:trace=0,pool=0", tokens), later = sequence_of(m, "ott2", tokens);
  auto const logits = logits_of(m, kivi, tokens, 1);
  CHECK(logits_of(m, none, tokens, 1) == logits);
  CHECK(logits_of(m, later, tokens, 1) == logits);  // layer 0 is not traced unless asked for
  CHECK(none.bytes() == kivi.bytes());
  CHECK(logits_of(m, ott, tokens, 1) != logits);
  // a traced token: 64 keys and values in fp16, position and score, for each of 2 heads; 3 to 35 of them
  CHECK(ott.bytes() > kivi.bytes() + 2 * 3 * 2 * 64 * 2);
  CHECK(ott.bytes() <= kivi.bytes() + 2 * 35 * (2 * 64 * 2 + 16));
}

TEST_CASE("kvtuner gives the layers the bits that its budget allows, and those that lose least") {
  model const m = tiny_model(3);
  auto const tokens = random_tokens(150);
  workers pool(1);
  auto const calibration = record_rows(m, tokens, pool);
  REQUIRE(calibration);
  auto const map =
      kvcrumb_compare::choose_kvtuner_bits(*calibration, {.group = 32, .window = 32, .tile_tokens = 32});
  REQUIRE(map);
  REQUIRE(map->size() == 3);
  int sum = 0;
  for (kvcrumb::layer_bits const b : *map) {
    CHECK((b.key == 2 || b.key == 4));
    CHECK((b.value == 2 || b.value == 4));
    sum += b.key + b.value;
  }
  CHECK(sum == 18);  // 3 bits on average: more bits never lose more here
  // Each layer's cache holds the bits that the map gives it: codes of 118 tokens, less 32 exact ones.
  sequence tuned = sequence_of(m, "kvtuner", tokens), two = sequence_of(m, "kivi2", tokens);
  logits_of(m, tuned, tokens, 1);
  logits_of(m, two, tokens, 1);
  std::int64_t const more = tuned.bytes() - two.bytes();
  CHECK(more == (sum - 12) * 96 * m.config.kv_width() / 8);
}

TEST_CASE("qaq keeps a token exact for four steps and then gives it the width that its attention asks for") {
  model const m = tiny_model(1);
  auto const tokens = random_tokens(150);
  sequence of = sequence_of(m, "qaq", tokens), wide = sequence_of(m, "qaq:window=40", tokens);
  sequence exact = sequence_of(m, "fp16", tokens);
  logits_of(m, of, tokens, 1);
  logits_of(m, wide, tokens, 1);
  logits_of(m, exact, tokens, 1);
  std::vector<float> k(64), v(64), k16(64), v16(64);
  auto const changed = [&](sequence& s) {
    std::vector<std::int64_t> n(2);
    for (int head = 0; head < 2; ++head) {
      for (std::int64_t t = 0; t < 150; ++t) {
        REQUIRE(s.layers.front()->read(head, t, k.data(), v.data()) == kvcrumb::status::ok);
        REQUIRE(exact.layers.front()->read(head, t, k16.data(), v16.data()) == kvcrumb::status::ok);
        n[static_cast<std::size_t>(head)] += k != k16 || v != v16 ? 1 : 0;
      }
    }
    return n;
  };
  CHECK(changed(of) == std::vector<std::int64_t>{145, 145});  // the newest four, and the one just appended
  CHECK(changed(wide) == std::vector<std::int64_t>{109, 109});
  CHECK(of.bytes() < wide.bytes());
}

TEST_CASE("qaq gives more bits to the value of a token that queries looked at") {
  model const m = tiny_model(1);
  sequence of = sequence_of(m, "qaq", random_tokens(150));
  kv_layer& layer = *of.layers.front();
  std::mt19937 engine{3};
  std::normal_distribution<float> normal;
  std::vector<float> k(2 * 64), v(2 * 64), q(static_cast<std::size_t>(m.config.query_heads) * 64),
      o(q.size());
  std::vector<std::vector<float>> values;
  for (int t = 0; t < 40; ++t) {
    for (std::size_t d = 0; d < k.size(); ++d) {
      k[d] = t == 20 ? (d % 64 < 2 ? 40.0f : 0.0f) : 0.01f * normal(engine);  // what all queries look at
      v[d] = normal(engine);
    }
    for (std::size_t d = 0; d < q.size(); ++d)
      q[d] = d % 64 < 2 ? 4.0f : 0.0f;
    values.push_back(v);
    REQUIRE(layer.append(kvcrumb::hnd_rows(std::as_const(k).data(), 1, 64),
                         kvcrumb::hnd_rows(std::as_const(v).data(), 1, 64), 1) == kvcrumb::status::ok);
    REQUIRE(layer.attend(kvcrumb::hnd_rows(std::as_const(q).data(), 1, 64), m.config.query_heads, 1,
                         kvcrumb::hnd_rows(o.data(), 1, 64), 0) == kvcrumb::status::ok);
  }
  auto const error = [&](std::int64_t t) {
    double sum = 0.0;
    for (int head = 0; head < 2; ++head) {
      REQUIRE(layer.read(head, t, k.data(), v.data()) == kvcrumb::status::ok);
      for (std::size_t d = 0; d < 64; ++d) {
        float const e = v[d] - values[static_cast<std::size_t>(t)][static_cast<std::size_t>(head) * 64 + d];
        sum += static_cast<double>(e * e) / 128.0;
      }
    }
    return std::sqrt(sum);
  };
  // sqrt(12 / n) 0.3 / A_max with n = 25, A_max = 1: an error of 0.2, so 4 to 8 bits for a range of 4 to 6;
  // the tokens after it got less than 0.01 and keep 2 bits, an error of a quarter of a standard deviation.
  CHECK(error(20) < 0.11);
  for (std::int64_t const t : {22, 25, 30})
    CHECK(error(t) > 0.2);
  CHECK(error(38) < 1e-3);  // still exact
}

TEST_CASE("several sequences in one step give what each gives alone") {
  model const m = tiny_model(2);
  auto const a = random_tokens(20, 1), b = random_tokens(31, 2);
  sequence alone = sequence_of(m, "fp32", b), first = sequence_of(m, "fp32", a),
           second = sequence_of(m, "fp32", b);
  auto const expected = logits_of(m, alone, b, b.size());
  step const both[] = {{&first, a}, {&second, b}};
  activations work;
  workers pool(3);
  REQUIRE(forward(m, both, work, pool).empty());
  std::vector<float> logits(b.size() * tiny_vocabulary);
  project_logits(m, work.x.data() + static_cast<std::int64_t>(a.size()) * m.config.hidden,
                 static_cast<std::int64_t>(b.size()), logits.data(), pool);
  CHECK(largest_difference(logits, expected) < 1e-4);
  CHECK(first.tokens() == 20);
  CHECK(second.tokens() == 31);
}

TEST_CASE("a token outside of the vocabulary is refused before any cache changes") {
  model const m = tiny_model(1);
  auto const tokens = random_tokens(4);
  sequence of = sequence_of(m, "fp16", tokens);
  workers pool(1);
  activations a;
  std::vector<int> const bad{1, tiny_vocabulary};
  step const next{&of, bad};
  CHECK(forward(m, std::span(&next, 1), a, pool).find("token 320") != std::string::npos);
  CHECK(of.tokens() == 0);
}

TEST_CASE("scheme requests are read with their options, and refused with a reason") {
  auto const r = parse_schemes("fp16,ott2:pool=5,window=8,kivi2,crumb2:trace=0");
  REQUIRE(r);
  REQUIRE(r->size() == 4);
  CHECK((*r)[1].text == "ott2:pool=5,window=8");
  CHECK((*r)[1].pool == 5);
  CHECK((*r)[1].window == 8);
  CHECK(!(*r)[1].group);
  CHECK((*r)[3].trace_from == 0);
  CHECK(parse_schemes("all")->size() == known_schemes().size());
  auto const refused = [](std::string const& text, std::string const& why) {
    auto const bad = parse_schemes(text);
    INFO(bad.error);
    return !bad && bad.error.find(why) != std::string::npos;
  };
  CHECK(refused("", "no scheme is named"));
  CHECK(refused("kivi9", "no scheme is named 'kivi9'"));
  CHECK(refused("kivi2,kivi2", "twice"));
  CHECK(refused("ott2:pool", "whole number"));
  CHECK(refused("ott2:pool=-1", "whole number"));
  CHECK(refused("ott2:pool=3x", "whole number"));
  CHECK(refused("ott2:bits=3", "no option 'bits'"));
  model const m = tiny_model(1);
  auto const group = parse_schemes("kivi2:group=64");
  REQUIRE(group);
  auto const none = make_layers(group->front(), shape_of(m, 100), {});
  CHECK(!none);
  CHECK(none.error.find("no groups of 64") != std::string::npos);
  auto const uncalibrated = make_layers((*parse_schemes("kvquant3"))[0], shape_of(m, 100), {});
  CHECK(!uncalibrated);
  CHECK(uncalibrated.error.find("must be calibrated") != std::string::npos);
}
