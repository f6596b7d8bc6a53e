// SPDX-License-Identifier: Apache-2.0
//! @file What encode and append refuse, before any launch.
#include "cuda/encode_tools.hpp"

using namespace kvcrumb;
using namespace kvcrumb::test;

namespace {
using row_scheme = kv_scheme<composed<affine<4>, per_row>, composed<affine<4>, per_row>>;
}  // namespace

TEST_CASE("bad arguments encode nothing", "[cuda][encode]") {
  using encoder = device::encoder<row_scheme, 64, 32, float16>;
  using appender = device::appender<row_scheme, 64, 32, float16>;
  device_input<float16> const input(layers_of({40}, 2, 64), {0}, 40);
  auto cache = device_cache<row_scheme>::make(row_scheme{}, {64, 32}, 2, {40});
  cache.set_length(0, 40);
  typename encoder::request_type const good{cache.view(), input.key_rows(), input.value_rows(), 40, nullptr};
  auto const refused = [&](status why, auto change) {
    typename encoder::request_type r = good;
    change(r);
    CHECK(encoder::check(row_scheme{}, r) == why);
    CHECK(encoder::encode(row_scheme{}, r, nullptr, 0) == cudaErrorInvalidValue);
  };
  using request = typename encoder::request_type;
  refused(status::bad_head_dim, [](request& r) { r.cache.shape.head_dim = 128; });
  refused(status::null_pointer, [](request& r) { r.cache.tokens = nullptr; });
  refused(status::null_pointer, [](request& r) { r.keys.data = nullptr; });
  refused(status::misaligned, [](request& r) { ++r.values.data; });
  refused(status::misaligned, [](request& r) { r.keys.stride_token = 67; });
  refused(status::bad_stride, [](request& r) { r.keys.stride_token = 56; });
  refused(status::out_of_range, [](request& r) { r.max_tokens = -1; });
  refused(status::bad_stride, [](request& r) { r.cache.values.stride_page = 16; });
  workspace tickets(16, std::byte{0});
  typename appender::request_type a{cache.view(), input.key_rows(), input.value_rows(), 0, nullptr};
  CHECK(appender::append(row_scheme{}, a, tickets.data(), 16) == cudaErrorInvalidValue);
  a.count = 1;
  CHECK(appender::append(row_scheme{}, a, nullptr, 16) == cudaErrorInvalidValue);
  CHECK(cache.intact());
  a.count = 1;
  CHECK(appender::append(row_scheme{}, a, tickets.data(), 16) == cudaSuccess);
}
