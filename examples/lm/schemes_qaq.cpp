// SPDX-License-Identifier: Apache-2.0
//! @file QAQ as it runs: the width of a token comes from the attention that it got while it was exact.
#include <algorithm>
#include <cmath>

#include <kvcrumb/schemes/qaq.hpp>

#include "layer_of.hpp"
#include "qaq_targets.hpp"

namespace kvcrumb_lm {

namespace {

using namespace kvcrumb;

//! Logits of the exact tokens, [query_heads][queries][tokens from `first` on].
struct tail_logits {
  float* logits = nullptr;
  int queries = 0;
  std::int64_t first = 0, tokens = 0;

  void on_score(score_coordinate c, float logit) const noexcept {
    if (c.token < first) return;
    logits[(static_cast<std::int64_t>(c.query_head) * queries + c.query) * tokens + c.token - first] = logit;
  }
};

class qaq_layer final : public kv_layer {
 public:
  explicit qaq_layer(qaq_cache<> cache) : cache_(std::move(cache)) {}

  std::unique_ptr<kv_layer> fresh() const override {
    qaq_cache<> empty;
    // The same arguments were accepted before.
    [[maybe_unused]] status const s = qaq_cache<>::create(cache_.options(), cache_.config(), empty);
    return std::make_unique<qaq_layer>(std::move(empty));
  }
  //! First encodes what attention has been seen of; rows that are refused then change nothing else.
  status append(row_view keys, row_view values, std::int64_t count) override {
    std::int64_t const exact = cache_.tail_tokens(), first = cache_.size() - exact;
    if (exact > cache_.options().recent) {
      std::int64_t const all = cache_.size(), heads = cache_.config().kv_heads;
      std::vector<float> attention(static_cast<std::size_t>(heads * all));
      for (std::int64_t head = 0; head < heads; ++head)
        std::copy_n(largest_.begin() + head * exact, exact, attention.begin() + head * all + first);
      if (status const s = cache_.compress(attention); s != status::ok) return s;
      keep(exact - cache_.tail_tokens(), cache_.tail_tokens());
    }
    if (status const s = cache_.append(keys, values, count); s != status::ok) return s;
    keep(0, cache_.tail_tokens());
    return status::ok;
  }
  status attend(row_view q, int query_heads, int queries, rows_view<float> o, std::int64_t window) override {
    attention_options options;
    options.window = window;
    auto const need = static_cast<std::size_t>(cache_.workspace(query_heads, queries));
    if (work_.size() < need) work_.resize(need);
    std::int64_t const exact = cache_.tail_tokens();
    auto const rows = static_cast<std::size_t>(query_heads) * static_cast<std::size_t>(queries);
    logits_.assign(rows * static_cast<std::size_t>(exact), -std::numeric_limits<float>::infinity());
    lse_.resize(rows);
    tail_logits const tracer{logits_.data(), queries, cache_.size() - exact, exact};
    if (status const s =
            cache_.attend(q, query_heads, queries, o, lse_.data(), options, std::span<float>(work_), tracer);
        s != status::ok)
      return s;
    int const ratio = query_heads / cache_.config().kv_heads;
    for (std::size_t row = 0; row < rows; ++row) {
      std::int64_t const head = static_cast<std::int64_t>(row) / queries / ratio;
      for (std::int64_t t = 0; t < exact; ++t) {
        float const weight = std::exp(
            logits_[row * static_cast<std::size_t>(exact) + static_cast<std::size_t>(t)] - lse_[row]);
        float& largest = largest_[static_cast<std::size_t>(head * exact + t)];
        largest = std::max(largest, std::min(weight, 1.0f));
      }
    }
    return status::ok;
  }
  std::int64_t tokens() const override { return cache_.size(); }
  std::int64_t bytes() const override {
    return cache_.bytes_used() + static_cast<std::int64_t>(largest_.size() * sizeof(float));
  }
  bool readable() const override { return true; }
  status read(int head, std::int64_t token, float* key, float* value) const override {
    return cache_.read(head, token, key, value);
  }

 private:
  //! The statistics of the exact tokens: the first `gone` of them have been encoded, `count` there are now.
  void keep(std::int64_t gone, std::int64_t count) {
    std::int64_t const heads = cache_.config().kv_heads;
    auto const before = static_cast<std::int64_t>(largest_.size()) / heads;
    std::vector<float> now(static_cast<std::size_t>(heads * count));
    for (std::int64_t head = 0; head < heads; ++head)
      std::copy_n(largest_.begin() + head * before + gone, std::min(before - gone, count),
                  now.begin() + head * count);
    largest_ = std::move(now);
  }

  qaq_cache<> cache_;
  std::vector<float> largest_;  //!< [kv_heads][exact tokens]: the largest weight that a query gave
  std::vector<float> work_, logits_, lse_;
};

}  // namespace

//! The four newest tokens wait for their attention, as in the authors' code, unless a window was asked for.
result<std::unique_ptr<kv_layer>> make_qaq(std::string_view name, layer_request const& r) {
  qaq_options const options = kvcrumb_compare::qaq_targets(r.own_window ? r.window : 4);
  qaq_cache<> cache;
  if (status const s = qaq_cache<>::create(options, {r.kv_heads, {r.head_dim, 32}}, cache); s != status::ok)
    return failure{fmt::format("{}, layer {}: {} (head_dim {}, {} kv heads)", name, r.layer, to_string(s),
                               r.head_dim, r.kv_heads)};
  return std::unique_ptr<kv_layer>(std::make_unique<qaq_layer>(std::move(cache)));
}

}  // namespace kvcrumb_lm
