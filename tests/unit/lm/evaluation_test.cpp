// SPDX-License-Identifier: Apache-2.0
//! @file An evaluation end to end on a tiny model; the base and its file.
#include "support/catch.hpp"

#include <cmath>

#include <nlohmann/json.hpp>

#include "lm_report.hpp"
#include "tensor_file.hpp"
#include "tiny_model.hpp"

namespace {

using namespace kvcrumb_lm;
using namespace kvcrumb_lm::test;
using kvcrumb::test::Approx;

auto const silent = [](std::string_view, double) {};

struct setup {
  model m = tiny_model(2);
  windows w = cut_windows(random_tokens(198), 100, 0);
  workers pool{2};
  base_logits base;
  setup() {
    auto made = compute_base(m, w, false, pool, silent);
    REQUIRE(made);
    base = std::move(*made);
  }
  std::vector<scheme_evaluation> run(std::string const& names, int chunk) {
    auto const calibration = record_rows(m, w[0], pool);
    REQUIRE(calibration);
    auto results = evaluate(m, w, base, *parse_schemes(names), *calibration, {.context = 100, .chunk = chunk},
                            pool, silent);
    INFO(results.error);
    REQUIRE(results);
    return std::move(*results);
  }
};

bool refused(std::filesystem::path const& path, base_key const& key, std::string const& why) {
  auto const loaded = base_logits::load(path, key);
  INFO(loaded.error);
  return !loaded && loaded.error.find(why) != std::string::npos;
}

}  // namespace

TEST_CASE("a text is cut into windows that all begin with the first token") {
  auto const tokens = random_tokens(10);
  windows const with = cut_windows(tokens, 5, 7);
  REQUIRE(with.size() == 2);  // two tokens are left out
  CHECK(with[0] == std::vector<int>{7, tokens[0], tokens[1], tokens[2], tokens[3]});
  CHECK(with[1] == std::vector<int>{7, tokens[4], tokens[5], tokens[6], tokens[7]});
  windows const without = cut_windows(tokens, 3, std::nullopt);
  CHECK(without.size() == 3);
  CHECK(without[2] == std::vector<int>{tokens[6], tokens[7], tokens[8]});
  windows const part = cut_windows(tokens, 100, 7);
  REQUIRE(part.size() == 1);  // all there is
  CHECK(part[0].size() == 11);
  CHECK(cut_windows(std::span(tokens).first(1), 100, std::nullopt).empty());
}

TEST_CASE("the control has no divergence, all schemes have finite ones, and bits are measured") {
  setup s;
  for (int const chunk : {1, 16}) {
    CAPTURE(chunk);
    auto const results = s.run("fp16,fp32,q8_0,kivi2,nvfp4,think_kivi2", chunk);
    CHECK(results[0].bits_per_value == 16.0);
    CHECK(results[1].bits_per_value == 32.0);
    CHECK(results[0].mean_bits == Approx(16.0));
    // q8_0: tiles of 32 slots of 2 heads, 4,416 bytes each. After 1, 2, ... 100 tokens 208 of them in all for
    // 5,050 tokens; after 16, 32, ... 96, 100 tokens 16 of them for 436.
    double const tiles = chunk == 1 ? 208.0 : 16.0, held = chunk == 1 ? 5050.0 : 436.0;
    CHECK(results[2].mean_bits == Approx(8.0 * 2.0 * 4416.0 * tiles / (held * 2.0 * 2.0 * 64.0)));
    // fp16 rounds rows that differ in the last bit of fp32 to other halves, so chunks of another size than
    // the base's are not exactly it: 2^-11 of a logit of some 10, squared
    CHECK(std::fabs(results[0].summary.largest) < 1e-4);
    CHECK(results[0].summary.all.divergence < 1e-6);
    CHECK(results[1].summary.all.divergence < 1e-5);
    CHECK(results[0].summary.all.tokens == 198);
    for (scheme_evaluation const& e : results) {
      CAPTURE(e.request.text);
      CHECK(std::isfinite(e.summary.perplexity));
      CHECK(e.summary.base_perplexity == results[0].summary.base_perplexity);
      CHECK(e.scores.size() == 198);
      std::vector<float> row(tiny_vocabulary);
      s.base.read_row(99 + 5, row);  // the sixth token of the second window
      CHECK(e.scores[104].position == 5);
      CHECK(e.scores[104].base_loss == -static_cast<double>(row[static_cast<std::size_t>(s.w[1][6])]));
    }
    CHECK(results[3].summary.all.divergence > 30.0 * results[2].summary.all.divergence);
    CHECK(results[2].summary.all.divergence > 0.0);
  }
}

TEST_CASE("the base predicts what the model predicts when it reads a window alone") {
  setup s;
  for (std::size_t i = 0, row = 0; i < s.w.size(); ++i) {
    sequence of = sequence_of(s.m, "fp16", s.w[i]);
    auto logits = logits_of(s.m, of, s.w[i], 64);
    for (std::size_t t = 0; t + 1 < s.w[i].size(); ++t, ++row) {
      std::span<float> const one(logits.data() + t * tiny_vocabulary, tiny_vocabulary);
      log_softmax(one);
      std::vector<float> stored(tiny_vocabulary);
      s.base.read_row(row, stored);
      CHECK(std::equal(stored.begin(), stored.end(), one.begin(),
                       [](float a, float b) { return std::fabs(a - b) < 1e-3f; }));
    }
  }
}

TEST_CASE("a base comes back from its file, as f32 to the bit and as f16 rounded") {
  setup const s;
  scratch_folder const folder;
  std::vector<float> want(tiny_vocabulary), got(tiny_vocabulary);
  REQUIRE(s.base.save(folder / "base").empty());
  auto const loaded = base_logits::load(folder / "base", key_of(s.m, s.w));
  INFO(loaded.error);
  REQUIRE(loaded);
  base_logits half(s.base.key(), true);
  for (std::uint64_t row = 0; row < s.base.key().rows; ++row) {
    s.base.read_row(row, want);
    loaded->read_row(row, got);
    CHECK(want == got);
    half.set_row(row, want);
  }
  REQUIRE(half.save(folder / "half").empty());
  CHECK(std::filesystem::file_size(folder / "base") == 56 + 4 * s.base.key().rows * tiny_vocabulary);
  CHECK(std::filesystem::file_size(folder / "half") == 56 + 2 * s.base.key().rows * tiny_vocabulary);
  auto const halved = base_logits::load(folder / "half", key_of(s.m, s.w));
  REQUIRE(halved);
  CHECK(halved->half());
  for (std::uint64_t row = 0; row < s.base.key().rows; ++row) {
    s.base.read_row(row, want);
    halved->read_row(row, got);
    for (std::size_t i = 0; i < want.size(); ++i)
      CHECK(std::fabs(got[i] - want[i]) <= std::fabs(want[i]) * 0x1p-11f + 0x1p-25f);
  }
  CHECK(!s.base.save(folder / "no_such_folder/base").empty());
}

TEST_CASE("a base of another model or text, or a damaged one, is refused") {
  setup const s;
  scratch_folder const folder;
  auto const path = folder / "base";
  REQUIRE(s.base.save(path).empty());
  base_key const key = key_of(s.m, s.w);
  auto const changed = [&](auto change) {
    base_key k = key;
    change(k);
    return k;
  };
  CHECK(refused(path, changed([](auto& k) { ++k.model; }), "another model"));
  CHECK(refused(path, changed([](auto& k) { ++k.text; }), "another text"));
  CHECK(refused(path, changed([](auto& k) { ++k.rows; }), "another text"));
  CHECK(refused(path, changed([](auto& k) { ++k.vocabulary; }), "another vocabulary"));
  auto const whole = read_text(path);
  REQUIRE(whole);
  auto const with = [&](std::string content) { folder.write("base", content); };
  with(whole->substr(0, whole->size() - 1));
  CHECK(refused(path, key, "truncated"));
  with(*whole + "x");
  CHECK(refused(path, key, "should have"));
  with(whole->substr(0, 30));
  CHECK(refused(path, key, "not a base"));
  std::string other = *whole;
  other[16] = 2;
  with(other);
  CHECK(refused(path, key, "version 2"));
  other = *whole;
  other[20] = 3;
  with(other);
  CHECK(refused(path, key, "unknown size"));
  CHECK(refused(folder / "none", key, "no such file"));
  // the key depends on model and tokens
  CHECK(key_of(tiny_model(2, 6), s.w).model != key.model);
  windows moved = s.w;
  moved[0].push_back(moved[1].back());
  moved[1].pop_back();
  CHECK(key_of(s.m, moved).text != key.text);
  CHECK(key_of(s.m, moved).rows == key.rows);
}

TEST_CASE("a recording has the rows of the model and is one for kvcrumb-compare") {
  model const m = tiny_model(2);
  auto const tokens = random_tokens(70);
  workers pool(1);
  std::vector<float> before;
  auto const recorded = record_rows(m, tokens, pool, &before);
  REQUIRE(recorded);
  sequence of = sequence_of(m, "fp32", tokens);
  logits_of(m, of, tokens, 11);
  std::vector<float> k(64), v(64);
  for (std::size_t layer = 0; layer < 2; ++layer) {
    for (int head = 0; head < 2; ++head) {
      for (std::int64_t t = 0; t < 70; ++t) {
        REQUIRE(of.layers[layer]->read(head, t, k.data(), v.data()) == kvcrumb::status::ok);
        auto const at = static_cast<std::ptrdiff_t>((head * 70 + t) * 64);
        auto const near = [](float a, float b) { return std::fabs(a - b) < 1e-4f; };
        CHECK(std::equal(k.begin(), k.end(), (*recorded)[layer].k.begin() + at, near));
        CHECK(std::equal(v.begin(), v.end(), (*recorded)[layer].v.begin() + at, near));
        if (t == 0) {  // position 0 is not rotated
          CHECK(std::equal(k.begin(), k.end(),
                           before.begin() + static_cast<std::ptrdiff_t>(layer * 2 * 70 * 64) + at, near));
        }
      }
    }
  }
  scratch_folder const folder;
  REQUIRE(write_recording(folder / "r.safetensors", *recorded, before, tokens, {{"model", "tiny"}}).empty());
  auto const read = kvcrumb_compare::load_tensor_file(folder / "r.safetensors");
  INFO(read.error);
  REQUIRE(read);
  CHECK(read->metadata.at("model") == "tiny");
  REQUIRE(read->layers.size() == 2);
  CHECK(read->layers[1].query_heads == 4);
  CHECK(read->layers[1].queries == 70);
  CHECK(std::fabs(read->layers[1].q[777] - (*recorded)[1].q[777]) <=
        std::fabs((*recorded)[1].q[777]) * 0x1p-11f);
  auto large = *recorded;
  large[1].v[5] = 7e4f;
  CHECK(write_recording(folder / "l.safetensors", large, before, tokens, {}).find("layer 1") !=
        std::string::npos);
}

TEST_CASE("the reports hold every scheme and escape what they are given") {
  setup s;
  report_input in;
  in.model = "a<b>\x1b[31m";
  in.text = "t&t";
  in.base = "Base.";
  in.context = 100;
  in.results = s.run("fp16,kivi2:window=8", 16);
  in.windows = 2;
  in.predicted = 198;
  in.each_token = true;
  std::string const text = text_report(in), html = html_report(in);
  CHECK(text.find("kivi2:window=8") != std::string::npos);
  CHECK(text.find('\x1b') == std::string::npos);
  CHECK(html.find("a&lt;b&gt;") != std::string::npos);
  CHECK(html.find("<b>") == std::string::npos);
  CHECK(html.find("<svg") != std::string::npos);
  auto const json = nlohmann::json::parse(json_report(in));
  REQUIRE(json["results"].size() == 2);
  auto const& kivi = json["results"][1];
  CHECK(kivi["scheme"] == "kivi2:window=8");
  CHECK(kivi["token_divergences"].size() == 198);
  CHECK(kivi["divergence"]["mean"].get<double>() == Approx(in.results[1].summary.all.divergence));
  CHECK(kivi["quarters"].size() == 4);
  CHECK(json["chunk"] == 1);
}
