// SPDX-License-Identifier: Apache-2.0
//! @file The three forms of the report: the JSON contract, nothing made up, nothing foreign executed or
//! loaded.
#include "support/catch.hpp"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include <zlib.h>

#include "picture.hpp"
#include "report.hpp"
#include "text.hpp"

namespace {

using namespace kvcrumb_compare;

key_picture small_picture(std::int64_t tokens, std::int64_t head_dim) {
  key_picture picture;
  picture.layer = 3;
  picture.head = 1;
  picture.tokens = tokens;
  picture.head_dim = head_dim;
  for (std::int64_t i = 0; i < tokens * head_dim; ++i)
    picture.keys.push_back(static_cast<float>(i % 7) - 3.0F);
  return picture;
}

report_input example(bool with_queries) {
  report_input input;
  input.input = "a/b.safetensors";
  input.tokens = 300;
  input.head_dim = 16;
  input.kv_heads = 2;
  input.query_heads = with_queries ? 4 : 0;
  input.queries = with_queries ? 8 : 0;
  input.layers = {3, 5};
  input.group = 128;
  input.window = 32;
  input.tile_tokens = 128;
  input.version = "0.1.0";
  input.command = "kvcrumb-compare";
  input.source = {{"model", "tiny"}};
  input.schemes = {{"fp16", "the control"}};
  for (char const* const name : {"fp16", "ott2"}) {
    scheme_result r;
    r.scheme = name;
    bool const packed = r.scheme == "ott2";
    r.bits_per_value = packed ? 2.5 : 16;
    r.compression = packed ? 6.4 : 1;
    r.k_rel_l2 = packed ? 0.25 : 0;
    r.v_rel_l2 = packed ? 0.125 : 0;
    r.encode_ms = 1.5;
    if (with_queries) {
      r.output_rel_l2_mean = packed ? 0.0625 : 0;
      r.output_rel_l2_p99 = packed ? 0.5 : 0;
      r.attention_kl_mean = packed ? 0.00003125 : 0;
      r.top1_agreement = packed ? 0.75 : 1;
      r.attend_ms = 2.5;
    }
    if (packed) r.traced_tokens = {{3, 1, 0, 0.25}, {5, std::nullopt, 17, 0.5}};
    input.results.push_back(r);
  }
  input.pictures.push_back(small_picture(300, 16));
  input.pictures[0].traced = input.results[1].traced_tokens;
  return input;
}

// Every element closed in order, attributes quoted, no stray <. Returns an error text, empty if well-formed.
std::string check_tags(std::string_view html) {
  std::vector<std::string> open;
  std::size_t at = html.find("\n") + 1;  // after <!DOCTYPE html>
  while ((at = html.find('<', at)) != std::string_view::npos) {
    std::size_t end = at + 1;
    for (bool quoted = false; end < html.size() && (quoted || html[end] != '>'); ++end) {
      if (html[end] == '"') quoted = !quoted;
      if (html[end] == '<') return "a < inside a tag at " + std::to_string(end);
    }
    if (end >= html.size()) return "an unfinished tag";
    std::string_view const tag = html.substr(at + 1, end - at - 1);
    bool const closing = tag.starts_with('/');
    std::string const name(
        tag.substr(closing ? 1 : 0, tag.find_first_of(" /", closing ? 1 : 0) - (closing ? 1 : 0)));
    if (closing) {
      if (open.empty() || open.back() != name) return "</" + name + "> does not close the innermost element";
      open.pop_back();
    } else if (!tag.ends_with('/')) {
      open.push_back(name);
    }
    at = end + 1;
    if (name == "style" && !closing) at = html.find("</style>", at);
  }
  return open.empty() ? "" : "<" + open.back() + "> stays open";
}

bool contains(std::string const& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("the JSON report has the keys of the contract") {
  auto const root = nlohmann::json::parse(json_report(example(true)));
  for (char const* const key : {"input", "tokens", "head_dim", "results"})
    CHECK(root.contains(key));
  CHECK(root["input"] == "a/b.safetensors");
  CHECK(root["tokens"] == 300);
  CHECK(root["head_dim"] == 16);
  REQUIRE(root["results"].size() == 2);
  std::set<std::string> const contract{"scheme",
                                       "bits_per_value",
                                       "compression",
                                       "output_rel_l2_mean",
                                       "output_rel_l2_p99",
                                       "attention_kl_mean",
                                       "top1_agreement",
                                       "k_rel_l2",
                                       "v_rel_l2",
                                       "traced_tokens",
                                       "encode_ms",
                                       "attend_ms"};
  for (auto const& row : root["results"]) {
    std::set<std::string> keys;
    for (auto const& [key, value] : row.items())
      keys.insert(key);
    CHECK(keys == contract);
  }
  auto const& row = root["results"][1];
  CHECK(row["scheme"] == "ott2");
  CHECK(row["bits_per_value"] == 2.5);
  CHECK(row["compression"] == 6.4);
  CHECK(row["output_rel_l2_mean"] == 0.0625);
  CHECK(row["output_rel_l2_p99"] == 0.5);
  CHECK(row["attention_kl_mean"] == 0.00003125);
  CHECK(row["top1_agreement"] == 0.75);
  CHECK(row["k_rel_l2"] == 0.25);
  CHECK(row["v_rel_l2"] == 0.125);
  CHECK(row["encode_ms"] == 1.5);
  CHECK(row["attend_ms"] == 2.5);
  REQUIRE(row["traced_tokens"].size() == 2);
  CHECK(row["traced_tokens"][0] ==
        nlohmann::json{{"layer", 3}, {"head", 1}, {"position", 0}, {"norm_ratio", 0.25}});
  CHECK(row["traced_tokens"][1]["head"].is_null());
  CHECK(root["results"][0]["traced_tokens"].is_array());
}

TEST_CASE("what the file cannot tell is null in JSON and a dash in the tables") {
  auto const root = nlohmann::json::parse(json_report(example(false)));
  for (auto const& row : root["results"]) {
    for (char const* const key :
         {"output_rel_l2_mean", "output_rel_l2_p99", "attention_kl_mean", "top1_agreement", "attend_ms"}) {
      CHECK(row[key].is_null());
    }
    CHECK(row["k_rel_l2"].is_number());
    CHECK(row["encode_ms"].is_number());
  }
  std::string const text = text_report(example(false));
  CHECK(contains(text, " - "));
  CHECK(!contains(text, "nan"));
  CHECK(contains(html_report(example(false)), "<td class=\"none\">\xE2\x80\x93</td>"));
}

TEST_CASE("a result that is not a number is null in JSON and named in the table") {
  report_input input = example(true);
  input.results[1].output_rel_l2_mean = std::numeric_limits<double>::quiet_NaN();
  input.results[1].output_rel_l2_p99 = std::numeric_limits<double>::infinity();
  auto const root = nlohmann::json::parse(json_report(input));
  CHECK(root["results"][1]["output_rel_l2_mean"].is_null());
  CHECK(root["results"][1]["output_rel_l2_p99"].is_null());
  CHECK(contains(text_report(input), " nan "));
  CHECK(contains(text_report(input), " inf "));
  CHECK(check_tags(html_report(input)).empty());
}

TEST_CASE("the text table is aligned") {
  std::string const text = text_report(example(true));
  CHECK(contains(
      text, "2 layers, 2 kv heads, 300 tokens, head dimension 16; 8 recorded query tokens of 4 query heads"));
  std::vector<std::string> rows;
  for (std::size_t at = 0; at < text.size();) {
    std::size_t const end = text.find('\n', at);
    rows.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  REQUIRE(rows.size() > 7);
  REQUIRE(rows[3].starts_with("scheme"));
  CHECK(rows[4].size() == rows[3].size());
  CHECK(rows[5].size() == rows[3].size());
  CHECK(rows[6].size() == rows[3].size());
  CHECK(contains(rows[6], "3.1e-05"));
  CHECK(contains(rows[6], "6.40x"));
  CHECK(contains(rows[6], "75.0"));
  CHECK(contains(text, "layer 3   head 1     0 (0.25)"));
  CHECK(contains(text, "layer 5   all heads  17 (0.50)"));
}

TEST_CASE("the HTML report is well-formed and loads nothing") {
  for (bool const with_queries : {true, false}) {
    std::string const html = html_report(example(with_queries));
    CHECK(check_tags(html) == "");
    for (char const* const loader :
         {"<script", "<link", "<iframe", "<img", "@import", "url(", "src=", "http:", "https:"}) {
      CAPTURE(loader);
      CHECK(!contains(html, loader));
    }
    for (std::size_t at = 0; (at = html.find("href=\"", at)) != std::string::npos; ++at) {
      CHECK(html.substr(at + 6, 22) == "data:image/png;base64,");
    }
    CHECK(contains(html, "divergence of the weights, nats") == with_queries);
    CHECK(contains(html, "prefers-color-scheme: dark"));
    CHECK(contains(html, "traced: token 0, key norm 0.25 of the median"));
    CHECK(!contains(html, "traced: token 17"));  // of another layer
  }
  CHECK(!check_tags("<!DOCTYPE html>\n<p><b></p></b>").empty());
  CHECK(!check_tags("<!DOCTYPE html>\n<p>").empty());
}

TEST_CASE("foreign text is escaped everywhere") {
  std::string const evil = "<script>alert(\"&'\")</script>\x1B[2J\xFF\nhttps://example.org";
  report_input input = example(true);
  input.input = evil;
  input.command = evil;
  input.version = "0";
  input.source = {{evil, evil}};
  input.schemes = {{evil, evil}};
  input.notes = {evil};
  input.results[0].scheme = evil;
  input.pictures[0].norm_name = evil;
  std::string const html = html_report(input);
  CHECK(check_tags(html) == "");
  CHECK(!contains(html, "<script"));
  CHECK(!contains(html, "\x1B"));
  CHECK(!contains(html, "\xFF"));
  std::string const text = text_report(input);
  CHECK(!contains(text, "\x1B"));
  auto const root = nlohmann::json::parse(json_report(input));
  CHECK(root["source"].size() == 1);
}

TEST_CASE("reports of odd sizes are made") {
  report_input input = example(true);
  SECTION("no results, no pictures") {
    input.results.clear();
    input.pictures.clear();
  }
  SECTION("one token, one channel") { input.pictures = {small_picture(1, 1)}; }
  SECTION("all keys zero") {
    input.pictures = {small_picture(40, 8)};
    for (float& x : input.pictures[0].keys)
      x = 0;
  }
  SECTION("an empty picture") { input.pictures = {small_picture(0, 8)}; }
  SECTION("more tokens than pixels, every token traced") {
    input.pictures = {small_picture(5000, 4)};
    for (int t = 0; t < 5000; ++t)
      input.pictures[0].traced.push_back({3, 1, t, 0.5});
    input.pictures[0].traced.push_back({3, 1, 5000, 0.5});
    input.pictures[0].traced.push_back({3, 1, -1, 0.5});
  }
  SECTION("one scheme, exact") { input.results.resize(1); }
  SECTION("errors over many decades") {
    input.results[0].output_rel_l2_mean = 1e-300;
    input.results[1].output_rel_l2_mean = 1e300;
  }
  CHECK(check_tags(html_report(input)) == "");
  CHECK(!contains(html_report(input), "nan"));
  CHECK(!contains(html_report(input), "=\"inf"));
  CHECK(!text_report(input).empty());
  CHECK(nlohmann::json::accept(json_report(input)));
}

TEST_CASE("the Pareto front holds what nothing else beats") {
  std::vector<double> const bits{16, 2, 4, 4, 3, 8};
  std::vector<std::optional<double>> const errors{0.0, 0.5, 0.1, 0.1, 0.6, std::nullopt};
  CHECK(pareto_front(bits, errors) == std::vector<std::size_t>{1, 2, 3, 0});
  CHECK(pareto_front({}, {}).empty());
}

TEST_CASE("a bin of the heat map shows its mean, or its traced token alone") {
  key_picture picture;
  picture.layer = 2;
  picture.tokens = 512;
  picture.head_dim = 2;
  for (int t = 0; t < 512; ++t) {
    picture.keys.push_back(t % 2 == 0 ? 1.0F : -3.0F);
    picture.keys.push_back(0.0F);
  }
  picture.traced = {{2, 0, 6, 0.3}, {2, 1, 9, 0.3}, {1, 0, 11, 0.3}};
  heat_cells const cells = bin_keys(picture);
  REQUIRE(cells.columns == 256);
  REQUIRE(cells.rows == 2);
  CHECK(cells.starts[3] == 6);
  CHECK(cells.values[0] == 2.0F);
  CHECK(cells.values[3] == 1.0F);  // token 6 alone
  CHECK(cells.values[4] == 2.0F);  // token 9 is of another head
  CHECK(cells.values[5] == 2.0F);  // token 11 is of another layer
  CHECK(cells.values[256] == 0.0F);
}

TEST_CASE("a palette PNG holds the cells it was given") {
  std::vector<std::uint8_t> const cells{0, 1, 2, 253, 254, 255};
  std::string const png = palette_png(cells, 3, 2);
  REQUIRE(png.starts_with("\x89PNG\r\n\x1A\n"));
  std::string data;
  std::string kinds;
  for (std::size_t at = 8; at < png.size();) {
    auto const number = [&](std::size_t from) {
      std::uint32_t value = 0;
      for (std::size_t i = 0; i < 4; ++i)
        value = (value << 8) | static_cast<unsigned char>(png[from + i]);
      return value;
    };
    std::uint32_t const size = number(at);
    std::string const body = png.substr(at + 4, 4 + size);
    kinds += body.substr(0, 4) + " ";
    CHECK(number(at + 8 + size) ==
          crc32(0, reinterpret_cast<Bytef const*>(body.data()), static_cast<uInt>(body.size())));
    if (body.starts_with("IDAT")) data = body.substr(4);
    at += 12 + size;
  }
  CHECK(kinds == "IHDR PLTE IDAT IEND ");
  std::string raw(8, '\0');
  uLongf size = raw.size();
  REQUIRE(uncompress(reinterpret_cast<Bytef*>(raw.data()), &size, reinterpret_cast<Bytef const*>(data.data()),
                     static_cast<uLong>(data.size())) == Z_OK);
  CHECK(size == 8);
  CHECK(raw == std::string("\0\0\1\2\0\xFD\xFE\xFF", 8));
}

TEST_CASE("text from outside is made safe") {
  CHECK(printable("a\tb") == "a\xEF\xBF\xBD"
                             "b");
  CHECK(printable("\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x8D\x9E") == "\xC3\xA9 \xE2\x82\xAC \xF0\x9F\x8D\x9E");
  CHECK(printable("\xC0\x80") == "\xEF\xBF\xBD\xEF\xBF\xBD");  // overlong
  CHECK(printable("\xED\xA0\x80").size() == 9);                // a surrogate
  CHECK(printable("\xE2\x82").size() == 6);                    // cut short
  CHECK(printable("abcdef", 3) == "abc...");
  CHECK(escape_html("<&>\"'") == "&lt;&amp;&gt;&quot;&#39;");
  CHECK(base64("") == "");
  CHECK(base64("f") == "Zg==");
  CHECK(base64("fo") == "Zm8=");
  CHECK(base64("foobar") == "Zm9vYmFy");
}

TEST_CASE("medians") {
  CHECK(median({}) == 0);
  CHECK(median({3, 1, 2}) == 2);
  CHECK(median({4, 1, 2, 3}) == 2.5);
}
