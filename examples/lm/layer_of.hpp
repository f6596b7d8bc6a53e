// SPDX-License-Identifier: Apache-2.0
//! @file layer_of: any scheme of kvcrumb as a kv_layer. Included by one file per family of schemes, because
//! attention over each of them takes seconds to compile.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <kvcrumb/kvcrumb.hpp>

#include "schemes.hpp"

namespace kvcrumb_lm {

template <class Scheme, kvcrumb::storage_float Row = kvcrumb::float16>
class layer_of final : public kv_layer {
 public:
  using cache_type = kvcrumb::kv_cache<Scheme, Row>;
  static constexpr bool decodes =
      kvcrumb::decodable<typename Scheme::key_type> && kvcrumb::decodable<typename Scheme::value_type>;

  //! `kept` is what the scheme points to.
  layer_of(cache_type cache, std::shared_ptr<void const> kept)
      : cache_(std::move(cache)), kept_(std::move(kept)) {}

  std::unique_ptr<kv_layer> fresh() const override {
    auto copy = std::make_unique<layer_of>(cache_type(), kept_);
    // The same arguments were accepted before.
    [[maybe_unused]] kvcrumb::status const s =
        cache_type::create(cache_.scheme(), cache_.config(), copy->cache_);
    return copy;
  }
  kvcrumb::status append(row_view keys, row_view values, std::int64_t count) override {
    return cache_.append(keys, values, count);
  }
  kvcrumb::status attend(row_view q, int query_heads, int queries, kvcrumb::rows_view<float> o,
                         std::int64_t window) override {
    auto const view = cache_.view();
    kvcrumb::attention_options options;
    options.window = window;
    auto const need = static_cast<std::size_t>(kvcrumb::attend_workspace(view, query_heads, queries));
    if (work_.size() < need) work_.resize(need);
    return kvcrumb::attend(view, q, query_heads, queries, o, nullptr, options, std::span<float>(work_));
  }
  std::int64_t tokens() const override { return cache_.size(); }
  std::int64_t bytes() const override { return cache_.bytes_used(); }
  bool readable() const override { return decodes; }
  kvcrumb::status read(int head, std::int64_t token, float* key, float* value) const override {
    if constexpr (decodes) {
      return cache_.read(head, token, key, value);
    } else {
      return kvcrumb::status::out_of_range;
    }
  }

 private:
  cache_type cache_;
  std::shared_ptr<void const> kept_;
  std::vector<float> work_;
};

//! An empty cache of a scheme, or why the scheme refuses the shape.
template <class Row = kvcrumb::float16, class Scheme>
result<std::unique_ptr<kv_layer>> make_layer(std::string_view name, Scheme const& scheme,
                                             layer_request const& r, std::shared_ptr<void const> kept = {}) {
  kvcrumb::kv_cache<Scheme, Row> cache;
  kvcrumb::cache_config const config{r.kv_heads, {r.head_dim, r.tile_tokens()}};
  if (kvcrumb::status const s = kvcrumb::kv_cache<Scheme, Row>::create(scheme, config, cache);
      s != kvcrumb::status::ok) {
    return failure{
        fmt::format("{}, layer {}: {} (head_dim {}, {} kv heads, groups of {}, tiles of {} tokens)", name,
                    r.layer, to_string(s), r.head_dim, r.kv_heads, r.group, r.tile_tokens())};
  }
  return std::unique_ptr<kv_layer>(
      std::make_unique<layer_of<Scheme, Row>>(std::move(cache), std::move(kept)));
}

//! f(integral_constant<int, group>) for the groups that are compiled in.
template <class F>
result<std::unique_ptr<kv_layer>> with_group(std::string_view name, int group, F f) {
  if (group == 32) return f(std::integral_constant<int, 32>{});
  if (group == 128) return f(std::integral_constant<int, 128>{});
  return failure{fmt::format("{}: no groups of {} tokens; there are 32 and 128", name, group)};
}

//! The window of a scheme that encodes groups.
inline kvcrumb::window flush_of(layer_request const& r) { return {r.window, r.group}; }

//! The window of a scheme that encodes token by token: its own, unless one was asked for.
template <class Scheme>
Scheme with_window(Scheme scheme, layer_request const& r) {
  if (r.own_window) scheme.flush = {r.window, 1};
  return scheme;
}

}  // namespace kvcrumb_lm
