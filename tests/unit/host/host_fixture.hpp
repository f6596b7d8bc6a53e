// SPDX-License-Identifier: Apache-2.0
//! @file host::attend with canaries around everything that it writes, and its distance from the double
//! reference.
#pragma once

#include "kvcrumb/host.hpp"
#include "support/cache_fixture.hpp"

namespace kvcrumb::test {

//! Every way to work that this processor has; AMX is emulated where it has none.
inline std::vector<host::execution> all_executions() {
  std::vector<host::execution> all;
  bool const amx = host::request_amx() == status::ok;
  if (!amx && host::is_available(host::instruction_set::avx512_vnni))
    all.push_back({host::instruction_set::avx512_vnni, host::precision::two_terms, true, true});
  for (int isa = 0; isa < host::instruction_set_count; ++isa) {
    auto const set = static_cast<host::instruction_set>(isa);
    if (!host::is_available(set)) continue;
    for (host::precision const p : {host::precision::two_terms, host::precision::binary32})
      all.push_back({set, p, true});
  }
  return all;
}

//! Bytes on a multiple of 64, with 64 canary bytes behind them.
class aligned_bytes {
 public:
  explicit aligned_bytes(std::int64_t count) : storage_(size(count) + 192), count_{count} {
    std::uintptr_t const at = reinterpret_cast<std::uintptr_t>(storage_.data());
    first_ = storage_.data() + (64 - at % 64) % 64;
    std::memset(first_, 0xA5, size(count) + 64);
  }
  std::span<std::byte> bytes() const { return {first_, size(count_)}; }
  bool intact() const {
    return std::all_of(first_ + count_, first_ + count_ + 64,
                       [](std::byte b) { return b == std::byte{0xA5}; });
  }

 private:
  std::vector<std::byte> storage_;
  std::int64_t count_;
  std::byte* first_;
};

//! host::attend on a view; queries [query head][query][dim].
template <class Scheme, class Row>
attention_result run_host(cache_view<Scheme, Row> const& view, std::vector<float> const& q, int query_heads,
                          int queries, host::execution const& how, attention_options const& options = {}) {
  int const dim = view.shape.head_dim;
  attention_result r;
  std::size_t const n = size(query_heads) * size(queries) * size(dim);
  std::vector<float> o(n + 2, std::nanf("")), lse(size(query_heads) * size(queries) + 2, std::nanf(""));
  o.front() = o.back() = lse.front() = lse.back() = 12345.0f;
  aligned_bytes const work(host::attend_workspace_bytes(view, query_heads, queries));
  r.outcome = host::attend(view, hnd_rows(q.data(), queries, dim), query_heads, queries,
                           hnd_rows(o.data() + 1, queries, dim), lse.data() + 1, options, work.bytes(), how);
  CHECK((o.front() == 12345.0f && o.back() == 12345.0f));
  CHECK((lse.front() == 12345.0f && lse.back() == 12345.0f));
  CHECK(work.intact());
  r.output.assign(o.begin() + 1, o.end() - 1);
  r.lse.assign(lse.begin() + 1, lse.end() - 1);
  return r;
}

//! Largest differences from what is expected; NaN stays NaN.
struct host_error {
  double lse = 0.0;        //!< absolute, nats
  double output = 0.0;     //!< L2 of the error over L2 of the output
  double largest = 0.0;    //!< absolute
  bool same_empty = true;  //!< rows without visible tokens are the same
};

inline host_error host_distance(attention_result const& got,
                                reference::grouped_attention_output const& expected) {
  host_error e;
  for (std::size_t i = 0; i < got.lse.size(); ++i) {
    bool const empty = std::isinf(expected.log_sum_exp[i]);
    e.same_empty = e.same_empty && empty == std::isinf(got.lse[i]);
    double const d = empty ? 0.0 : std::fabs(static_cast<double>(got.lse[i]) - expected.log_sum_exp[i]);
    e.lse = d <= e.lse ? e.lse : d;
  }
  double squares = 0.0, total = 0.0;
  for (std::size_t i = 0; i < got.output.size(); ++i) {
    double const d = std::fabs(static_cast<double>(got.output[i]) - expected.output[i]);
    e.largest = d <= e.largest ? e.largest : d;
    squares += d * d;
    total += expected.output[i] * expected.output[i];
  }
  e.output = squares == 0.0 ? 0.0 : std::sqrt(squares / total);
  return e;
}

//! Compares host::attend, in every way to work, with the double reference on the decoded cache. In binary32
//! the bound of kvcrumb::attend holds (twice: sums go another way); two terms have their tolerance.
template <class Cache>
void check_host_attention(Cache const& cache, std::vector<float> const& q, int query_heads, int queries,
                          attention_options const& options = {}, double tolerance = 5e-4) {
  int const dim = cache.config().shape.head_dim;
  decoded_rows const rows = decode_all(cache);
  auto const expected =
      expected_attention(rows, cache.config().kv_heads, dim, q, query_heads, queries, options);
  attention_bound const bound = bound_of(rows, dim, q, options.softmax_scale, 2.0);
  for (host::execution const& how : all_executions()) {
    CAPTURE(cache.scheme().name, dim, cache.size(), query_heads, queries, host::to_string(how.isa),
            static_cast<int>(how.arithmetic));
    attention_result const got = run_host(cache.view(), q, query_heads, queries, how, options);
    REQUIRE(got.outcome == status::ok);
    host_error const e = host_distance(got, expected);
    CHECK(e.same_empty);
    if (how.arithmetic == host::precision::binary32) {
      CHECK(e.lse <= bound.lse);
      CHECK(e.largest <= bound.output);
    } else {
      CHECK(e.lse <= tolerance);
      CHECK(e.output <= tolerance);
    }
  }
}

}  // namespace kvcrumb::test
