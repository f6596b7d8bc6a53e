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
  auto const refused_of_two = [&](status why, auto change) {
    refused(why, [&](request& r) {
      r.cache.sequences = 2;
      change(r);
    });
  };
  refused_of_two(status::bad_stride, [](request& r) { r.keys.stride_sequence = 0; });
  refused_of_two(status::bad_stride,
                 [](request& r) { r.cache.pages.stride = 1; });  // 40 tokens are two tiles
  refused_of_two(status::bad_stride, [](request& r) { r.cache.tail_keys.stride_head = 0; });
  refused_of_two(status::bad_stride, [](request& r) { r.cache.tail_keys.stride_sequence = 0; });
  refused_of_two(status::size_overflow,
                 [](request& r) { r.cache.pages = {.stride = (std::int64_t{1} << 30) + 1}; });
  workspace tickets(16, std::byte{0});
  typename appender::request_type a{cache.view(), input.key_rows(), input.value_rows(), 0, nullptr};
  CHECK(appender::append(row_scheme{}, a, tickets.data(), 16) == cudaErrorInvalidValue);
  a.count = 1;
  CHECK(appender::append(row_scheme{}, a, nullptr, 16) == cudaErrorInvalidValue);
  CHECK(cache.intact());
  a.count = 1;
  cache.set_length(0, 1);  // nothing was encoded: this is the first token
  CHECK(appender::append(row_scheme{}, a, tickets.data(), 16) == cudaSuccess);
  CHECK(appender::check_truncate(row_scheme{}, cache.view()) == status::ok);
  using kivi = schemes::kivi_type<2, 32>;
  CHECK(device::appender<kivi, 64, 32, float16>::check_truncate(schemes::kivi<2, 32>(), cache.view()) ==
        status::not_in_tail);
}
