// SPDX-License-Identifier: Apache-2.0
//! @file host::attend with centred keys: the transform adds a constant to every logit of the tiles, which
//! exact rows do not have.
#include "unit/host/host_fixture.hpp"

using namespace kvcrumb;
namespace test = kvcrumb::test;

TEST_CASE("host attention: centred keys", "[host]") {
  using scheme_type =
      kv_scheme<composed<affine<4>, per_channel<32>, mean_center>, composed<affine<4>, per_row>>;
  test::layer_rows rows = test::random_layer(41, 2, 150, 64);
  std::vector<float> means;
  for (int i = 0; i < 2 * 64; ++i)
    means.push_back(test::half(3.0 * std::sin(i)));
  for (std::size_t i = 0; i < rows.keys.size(); ++i)
    rows.keys[i] = test::half(static_cast<double>(rows.keys[i] + means[i / (150 * 64) * 64 + i % 64]));
  scheme_type scheme{.name = "centred"};
  scheme.key.transform.means = means.data();
  int const queries = GENERATE(1, 2);
  auto const cache = test::filled(scheme, rows, 32);
  test::check_host_attention(cache, test::random_queries(3, 2, queries, 64), 2, queries);
}
