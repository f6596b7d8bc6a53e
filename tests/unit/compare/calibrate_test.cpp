// SPDX-License-Identifier: Apache-2.0
//! @file KVQuant's calibration as a file: what is read back is what was learned, and it is used for nothing
//! that it does not fit.
#include "calibrate.hpp"

#include <algorithm>
#include <random>

#include <fmt/format.h>

#include "archive_builder.hpp"
#include "support/catch.hpp"

namespace {

using namespace kvcrumb_compare;

//! Gaussian rows of `head_dim` channels with queries; layers 2, 3, ...
recorded_layers recording(unsigned seed, int layers = 2, std::int64_t kv_heads = 2,
                          std::int64_t head_dim = 64) {
  std::mt19937_64 engine{seed};
  std::normal_distribution<float> normal;
  recorded_layers r;
  for (int number = 2; number < 2 + layers; ++number) {
    recorded_layer layer;
    layer.number = number;
    layer.kv_heads = kv_heads;
    layer.query_heads = 2 * kv_heads;
    layer.tokens = 48;
    layer.queries = 4;
    layer.head_dim = layer.value_dim = head_dim;
    layer.query_positions = {44, 45, 46, 47};
    for (std::vector<float>* rows : {&layer.k, &layer.v}) {
      for (std::int64_t i = 0; i < kv_heads * layer.tokens * head_dim; ++i)
        rows->push_back(normal(engine));
    }
    for (std::int64_t i = 0; i < layer.query_heads * layer.queries * head_dim; ++i)
      layer.q.push_back(normal(engine));
    r.layers.push_back(std::move(layer));
  }
  return r;
}

std::vector<exact_layer> exact_layers(recorded_layers const& r) {
  std::vector<exact_layer> exact;
  for (recorded_layer const& layer : r.layers)
    exact.push_back(exact_attention(layer, {}));
  return exact;
}

result<scheme_result> with_parameters(calibration const& c, recorded_layers const& r) {
  return evaluate_calibrated(c, r, exact_layers(r), {}, [] {});
}

std::string text_of(std::string_view scheme, recorded_layers const& r) {
  auto const c = calibrate(scheme, r);
  REQUIRE(c);
  auto const text = calibration_text(*c);
  REQUIRE(text);
  return *text;
}

template <class T>
bool refuses(result<T> const& r, std::string const& words) {
  INFO(r.error);
  CHECK(r.error.find(words) != std::string::npos);
  return !r;
}

std::string replaced(std::string text, std::string const& from, std::string const& to) {
  std::size_t const at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

}  // namespace

TEST_CASE("a calibration written and read back does what calibrating directly does", "[compare][calibrate]") {
  auto const* const scheme = GENERATE("kvquant2", "kvquant3", "kvquant4");
  auto const r = recording(5);
  auto const c = read_calibration(text_of(scheme, r), "file");
  INFO(c.error);
  REQUIRE(c);
  CHECK(c->scheme == scheme);
  REQUIRE(c->layers.size() == 2);
  CHECK(c->layers[1].number == 3);
  CHECK(c->layers[1].kv_heads == 2);
  CHECK(c->layers[1].head_dim == 64);
  auto const read = with_parameters(*c, r);
  auto const direct = evaluate(scheme, r, exact_layers(r), {}, [] {});
  INFO(read.error << direct.error);
  REQUIRE(read);
  REQUIRE(direct);
  CHECK(read->scheme == scheme);
  CHECK(read->bits_per_value == direct->bits_per_value);
  CHECK(read->k_rel_l2 == direct->k_rel_l2);
  CHECK(read->v_rel_l2 == direct->v_rel_l2);
  CHECK(read->output_rel_l2_mean == direct->output_rel_l2_mean);
  CHECK(read->attention_kl_mean == direct->attention_kl_mean);
  CHECK(*read->k_rel_l2 < 0.6);
}

TEST_CASE("the parameters are those of the file, each layer by its number", "[compare][calibrate]") {
  auto const here = recording(5);
  auto elsewhere = recording(6);
  auto const own = with_parameters(*read_calibration(text_of("kvquant3", here), "a"), here);
  auto const foreign = with_parameters(*read_calibration(text_of("kvquant3", elsewhere), "b"), here);
  REQUIRE(own);
  REQUIRE(foreign);
  CHECK(*own->k_rel_l2 < *foreign->k_rel_l2);
  std::swap(elsewhere.layers[0], elsewhere.layers[1]);
  auto const swapped = with_parameters(*read_calibration(text_of("kvquant3", elsewhere), "c"), here);
  REQUIRE(swapped);
  CHECK(swapped->k_rel_l2 == foreign->k_rel_l2);
}

TEST_CASE("parameters of other layers, shapes or schemes are refused", "[compare][calibrate]") {
  auto const r = recording(5);
  auto const c = read_calibration(text_of("kvquant3", r), "file");
  REQUIRE(c);
  CHECK(refuses(with_parameters(*c, recording(5, 3)), "no layer 4"));
  CHECK(refuses(with_parameters(*c, recording(5, 1, 4)), "2 kv heads of 64 channels, the input has 4 of 64"));
  CHECK(refuses(with_parameters(*c, recording(5, 1, 2, 128)), "the input has 2 of 128"));
  CHECK(refuses(calibrate("kivi2", r), "no calibration for 'kivi2'; there are kvquant2"));
  calibration other = *c;
  other.scheme = "kivi2";
  CHECK(refuses(with_parameters(other, r), "no calibration for 'kivi2'"));
  other.scheme = "kvquant2";  // tables of 8 levels
  CHECK(refuses(with_parameters(other, r), "layer 2: bad parameters"));
  auto narrow = r;
  narrow.layers[1].value_dim = 32;
  CHECK(refuses(calibrate("kvquant3", narrow), "layer 3: keys have 64 channels and values 32"));
  CHECK(refuses(calibrate("kvquant3", recording(5, 1, 1, 2)), "layer 2: "));
}

TEST_CASE("a damaged file is refused with the line of the layer", "[compare][calibrate]") {
  std::string const text = text_of("kvquant3", recording(5));
  auto const read = [](std::string const& t) { return read_calibration(t, "file"); };
  REQUIRE(read(text));
  std::size_t const second = text.find("\nkvcrumb-calibration") + 1;
  auto const line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(second), '\n');
  CHECK(refuses(read(""), "line 1: not a calibration"));
  CHECK(refuses(read("safetensors"), "not a calibration"));
  CHECK(refuses(read(text.substr(0, text.size() - 1)), fmt::format("line {}: layer 3 is damaged", line)));
  CHECK(refuses(read(text + "0"), "layer 3 is damaged"));
  CHECK(refuses(read(text.substr(0, 30)), "line 1: a damaged header"));
  CHECK(refuses(read(text.substr(0, second) + text.substr(0, second)), "layer 2 twice"));
  CHECK(refuses(read(replaced(text, "calibration 1", "calibration 2")), "damaged header"));
  CHECK(refuses(read(replaced(text, "kv_heads 2", "kv_heads x")), "damaged header"));
  CHECK(refuses(read(replaced(text, "kv_heads 2", "kv_heads 99999999999999999999")), "damaged header"));
  CHECK(refuses(read(replaced(text, "kv_heads 2", "kv_heads 4")), "for 4 kv heads of 64 channels"));
  CHECK(refuses(read(replaced(text, "kvquant3", "kvquant4")), "not the parameters of kvquant4"));
  CHECK(refuses(read(replaced(text, "kvquant3", "kivi2")), "no calibration for 'kivi2'"));
  CHECK(refuses(read(text.substr(0, second) + replaced(text.substr(second), "kvquant3", "kvquant4")),
                fmt::format("line {}: kvquant4 after kvquant3", line)));
  std::size_t const digit = text.find("2.key_shift") + 20;
  std::string changed = text;
  changed[digit] = changed[digit] == '1' ? '2' : '1';
  CHECK(refuses(read(changed), "line 1: layer 2 is damaged"));
  for (std::size_t cut = 0; cut < text.size(); cut += 13) {
    if (cut == second) continue;  // a whole layer
    if (read(text.substr(0, cut))) {
      CAPTURE(cut);
      FAIL_CHECK("a file that was cut off is read");
    }
  }
}

TEST_CASE("a calibration is loaded from a file", "[compare][calibrate]") {
  CHECK(refuses(load_calibration("/nowhere/kvquant.txt"), "'/nowhere/kvquant.txt': there is no such file"));
  std::string const text = text_of("kvquant4", recording(7));
  test::scratch_file const file(text);
  auto const c = load_calibration(file.path());
  INFO(c.error);
  REQUIRE(c);
  CHECK(*calibration_text(*c) == text);
}
