// SPDX-License-Identifier: Apache-2.0
//! @file search_recipes: which composition of the library's pieces loses least at a given number of bits,
//! with no calibration. Every candidate of one side really encodes the recorded rows and reads them back;
//! pairs of a key side and a value side are then judged by exact attention, in double precision, over what
//! they read.
//!
//!   search_recipes [--budget 2.5] [--sides] [--all] FILE...
//!
//! FILE is a .safetensors or .npz file with q, k, v, as for kvcrumb-compare. Layers at even places of a file
//! are searched, the odd ones only report. Prints each side alone (--sides), the best pairs within the budget
//! (all of them with --all) by the worse of output error and divergence on the searched half, both relative
//! to KIVI's 2 bits with groups of 32, and how the named systems stand; always with both halves.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <kvcrumb/kvcrumb.hpp>
#include <kvcrumb/reference/attention.hpp>

#include "candidates.hpp"

namespace {

using namespace recipes;

//! Errors of one pair on one layer.
struct judgement {
  double output = 0.0;      //!< mean over queries and heads of |o' - o| / |o|
  double divergence = 0.0;  //!< mean KL divergence of the weights, nats
};

std::vector<double> as_doubles(std::vector<float> const& x) { return {x.begin(), x.end()}; }

//! Attention of the last queries of a layer over given rows.
kvcrumb::reference::grouped_attention_output attend(kvcrumb_compare::recorded_layer const& layer,
                                                    std::vector<double> const& keys,
                                                    std::vector<double> const& values) {
  auto const width = static_cast<std::size_t>(layer.head_dim);
  std::int64_t const queries = std::min<std::int64_t>(layer.queries, max_queries);
  std::vector<double> q;
  for (std::int64_t head = 0; head < layer.query_heads; ++head) {
    auto const begin = layer.q.begin() + ((head + 1) * layer.queries - queries) * layer.head_dim;
    q.insert(q.end(), begin, begin + queries * layer.head_dim);
  }
  std::vector<std::int64_t> at(static_cast<std::size_t>(layer.tokens));
  for (std::size_t i = 0; i < at.size(); ++i)
    at[i] = static_cast<std::int64_t>(i);
  std::vector<std::int64_t> const query_at(layer.query_positions.end() - queries,
                                           layer.query_positions.end());
  kvcrumb::reference::grouped_attention_input in;
  in.queries = q;
  in.keys = keys;
  in.values = values;
  in.query_positions = query_at;
  in.key_positions = at;
  in.query_heads = static_cast<std::size_t>(layer.query_heads);
  in.kv_heads = static_cast<std::size_t>(layer.kv_heads);
  in.key_dim = in.value_dim = width;
  kvcrumb::reference::attention_arguments arguments;
  arguments.softmax_scale = 1.0 / std::sqrt(static_cast<double>(width));
  return kvcrumb::reference::attend_grouped(in, arguments);
}

judgement judge(kvcrumb_compare::recorded_layer const& layer,
                kvcrumb::reference::grouped_attention_output const& exact, std::vector<double> const& keys,
                std::vector<double> const& values) {
  auto const got = attend(layer, keys, values);
  auto const width = static_cast<std::size_t>(layer.head_dim),
             tokens = static_cast<std::size_t>(layer.tokens);
  std::size_t const rows = got.output.size() / width;
  judgement j;
  for (std::size_t r = 0; r < rows; ++r) {
    double error = 0.0, norm = 0.0, divergence = 0.0;
    for (std::size_t d = r * width; d < (r + 1) * width; ++d) {
      error += (got.output[d] - exact.output[d]) * (got.output[d] - exact.output[d]);
      norm += exact.output[d] * exact.output[d];
    }
    for (std::size_t t = r * tokens; t < (r + 1) * tokens; ++t) {
      double const p = exact.weights[t];
      if (p > 0.0) divergence += p * std::log(p / std::max(got.weights[t], 1e-300));
    }
    j.output += norm > 0.0 ? std::sqrt(error / norm) : 0.0;
    j.divergence += std::max(divergence, 0.0);
  }
  j.output /= static_cast<double>(rows);
  j.divergence /= static_cast<double>(rows);
  return j;
}

//! One layer with what every candidate reads back, and exact attention.
struct prepared_layer {
  kvcrumb_compare::recorded_layer layer;
  bool searched = true;
  kvcrumb::reference::grouped_attention_output exact;
  std::map<std::string, side_rows> keys, values;  //!< by isolation and candidate
};

struct pair_result {
  std::string isolation, key, value;
  double bits = 0.0;
  judgement searched, held_out;
};

//! What is minimized: the worse of output error and divergence of the searched half, each relative to
//! `yardstick`.
double merit(pair_result const& r, judgement const& yardstick) {
  return std::max(r.searched.output / yardstick.output, r.searched.divergence / yardstick.divergence);
}

side_rows const* exact_side(prepared_layer const&) { return nullptr; }

//! `key_of` and `value_of` give a side of a layer; null: the exact rows, which cost nothing here.
template <class KeyOf, class ValueOf>
pair_result judge_sides(std::vector<prepared_layer> const& layers, KeyOf key_of, ValueOf value_of) {
  pair_result r;
  int searched = 0, held_out = 0;
  for (prepared_layer const& p : layers) {
    side_rows const *k = key_of(p), *v = value_of(p);
    judgement const j = judge(p.layer, p.exact, k != nullptr ? k->rows : as_doubles(p.layer.k),
                              v != nullptr ? v->rows : as_doubles(p.layer.v));
    judgement& sum = p.searched ? r.searched : r.held_out;
    (p.searched ? searched : held_out) += 1;
    sum.output += j.output;
    sum.divergence += j.divergence;
    double const bits = k != nullptr && v != nullptr ? 0.5 * (k->bits + v->bits)
                        : k != nullptr               ? k->bits
                                                     : v->bits;
    r.bits += bits / static_cast<double>(layers.size());
  }
  for (auto const& [sum, n] : {std::pair{&r.searched, searched}, std::pair{&r.held_out, held_out}}) {
    sum->output /= std::max(n, 1);
    sum->divergence /= std::max(n, 1);
  }
  return r;
}

pair_result judge_pair(std::vector<prepared_layer> const& layers, std::string const& isolation,
                       std::string const& key, std::string const& value) {
  pair_result r = judge_sides(
      layers, [&](prepared_layer const& p) { return &p.keys.at(isolation + key); },
      [&](prepared_layer const& p) { return &p.values.at(isolation + value); });
  r.isolation = isolation;
  r.key = key;
  r.value = value;
  return r;
}

void print_side(char const* which, std::string const& name, pair_result const& r) {
  fmt::print("{:6} {:30} {:6.3f}  {:8.4f} {:9.5f}   {:8.4f} {:9.5f}\n", which, name, r.bits,
             r.searched.output, r.searched.divergence, r.held_out.output, r.held_out.divergence);
}

void print(pair_result const& r) {
  fmt::print("{:10} {:26} {:26} {:6.3f}  {:8.4f} {:9.5f}   {:8.4f} {:9.5f}\n", r.isolation, r.key, r.value,
             r.bits, r.searched.output, r.searched.divergence, r.held_out.output, r.held_out.divergence);
}

}  // namespace

int main(int count, char** arguments) {
  double budget = 2.5;
  bool everything = false, sides = false;
  std::vector<prepared_layer> layers;
  for (int i = 1; i < count; ++i) {
    std::string const argument = arguments[i];
    if (argument == "--budget" && i + 1 < count) {
      budget = std::atof(arguments[++i]);
    } else if (argument == "--all") {
      everything = true;
    } else if (argument == "--sides") {
      sides = true;
    } else {
      auto loaded = kvcrumb_compare::load_tensor_file(argument);
      if (!loaded) {
        fmt::print(stderr, "search_recipes: {}\n", loaded.error);
        return 2;
      }
      int place = 0;
      for (auto& layer : loaded->layers) {
        if (!layer.has_queries() || layer.tokens < 128) continue;
        layers.push_back({std::move(layer), place++ % 2 == 0, {}, {}, {}});
      }
    }
  }
  if (layers.empty()) {
    fmt::print(stderr, "search_recipes: no layer with queries and at least 128 tokens\n");
    return 2;
  }
  for (prepared_layer& p : layers) {
    p.exact = attend(p.layer, as_doubles(p.layer.k), as_doubles(p.layer.v));
    encode_all(p.layer, p.keys, p.values);
    fmt::print(stderr, "layer {} of {} tokens: {} key sides, {} value sides\n", p.layer.number,
               p.layer.tokens, p.keys.size(), p.values.size());
  }
  // Every key side with the exact values, every value side with the exact keys.
  std::map<std::string, pair_result> key_sides, value_sides;
  for (auto const& [name, side] : layers.front().keys)
    key_sides[name] = judge_sides(
        layers, [&](prepared_layer const& p) { return &p.keys.at(name); }, exact_side);
  for (auto const& [name, side] : layers.front().values)
    value_sides[name] =
        judge_sides(layers, exact_side, [&](prepared_layer const& p) { return &p.values.at(name); });
  if (sides) {
    fmt::print("{:37} {:>6}  {:>8} {:>9}   {:>8} {:>9}\n", "one side alone", "bits", "searched", "KL",
               "held out", "KL");
    for (auto const* all : {&key_sides, &value_sides}) {
      for (auto const& [name, r] : *all)
        print_side(all == &key_sides ? "keys" : "values", name, r);
    }
  }
  named_pair const& reference = named_pairs().front();
  judgement const yardstick =
      judge_pair(layers, reference.isolation, reference.key, reference.value).searched;
  std::vector<pair_result> candidates;
  prepared_layer const& first = layers.front();
  for (std::string const& isolation : isolation_names()) {
    for (auto const& [key, k] : first.keys) {
      if (key.rfind(isolation, 0) != 0) continue;
      for (auto const& [value, v] : first.values) {
        if (value.rfind(isolation, 0) != 0) continue;
        if (0.5 * (k.bits + v.bits) > budget) continue;
        judgement const &a = key_sides.at(key).searched, &b = value_sides.at(value).searched;
        pair_result r{isolation, key.substr(isolation.size()), value.substr(isolation.size()), 0.0, {}, {}};
        r.searched = {std::sqrt(a.output * a.output + b.output * b.output),
                      a.divergence};  // as if independent
        candidates.push_back(std::move(r));
      }
    }
  }
  std::sort(candidates.begin(), candidates.end(),
            [&](auto const& a, auto const& b) { return merit(a, yardstick) < merit(b, yardstick); });
  if (!everything && candidates.size() > 40) candidates.resize(40);
  for (pair_result& r : candidates)
    r = judge_pair(layers, r.isolation, r.key, r.value);
  std::sort(candidates.begin(), candidates.end(),
            [&](auto const& a, auto const& b) { return merit(a, yardstick) < merit(b, yardstick); });
  fmt::print("{:10} {:26} {:26} {:>6}  {:>8} {:>9}   {:>8} {:>9}\n", "isolation", "keys", "values", "bits",
             "searched", "KL", "held out", "KL");
  for (std::size_t i = 0; i < candidates.size() && (everything || i < 20); ++i)
    print(candidates[i]);
  fmt::print("named systems, with no full-precision window:\n");
  for (auto const& [name, isolation, key, value] : named_pairs()) {
    pair_result r = judge_pair(layers, isolation, key, value);
    fmt::print("{:12} ", name);
    print(r);
  }
  return 0;
}
