// SPDX-License-Identifier: Apache-2.0
//! @file Compiled normally and with -O3 -march=native -ffast-math -ffp-contract=fast: the bytes of every
//! scheme are the recorded ones either way, NaN groups and zeros of both signs included.
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "golden/cases.hpp"
#include "support/catch.hpp"

using namespace kvcrumb;

TEST_CASE("stored bytes do not depend on floating-point flags", "[scheme][fast_math]") {
  for (auto const& r : golden::all_recorded()) {
    std::ifstream file(std::string(KVCRUMB_GOLDEN_DIR) + "/" + r.name + ".bin", std::ios::binary);
    std::string const recorded{std::istreambuf_iterator<char>(file), {}};
    CAPTURE(r.name);
    REQUIRE(recorded.size() == r.bytes.size());
    std::size_t wrong = 0, first = recorded.size();
    for (std::size_t i = recorded.size(); i-- > 0;) {
      if (static_cast<std::byte>(recorded[i]) == r.bytes[i]) continue;
      ++wrong;
      first = i;
    }
    CAPTURE(first);
    CHECK(wrong == 0);
  }
}

TEST_CASE("NaN groups are seen and stay where they are under any flags", "[scheme][fast_math]") {
  using scheme_type = composed<affine<4>, per_token<32>>;
  scheme_type const scheme{};
  tile_shape const shape{64, 32};
  auto rows = golden::input_rows(1, shape, 3, true);
  std::vector<std::byte> section(static_cast<std::size_t>(scheme.section_bytes(side::value, shape)));
  std::byte* pointer = section.data();
  encode_request request;
  request.rows = rows.data();
  request.sections = &pointer;
  request.heads = 1;
  request.count = 32;
  null_tracer none;
  scheme.encode(side::value, shape, request, none);
  section_spec const s = scheme_type::spec(side::value, shape);
  int poisoned = 0;
  for (int t = 0; t < 32; ++t) {
    for (int group = 0; group < 2; ++group) {
      auto const p = scheme.params(s, section.data(), t, group);
      bool const nan = is_nan_bits(p.value[0]) && is_nan_bits(p.value[1]);
      bool const expected = (t == 21 && group == 1) || (t == 22 && group == 0);
      CHECK(nan == expected);
      poisoned += nan ? 1 : 0;
      for (int dim = 32 * group; expected && dim < 32 * group + 32; ++dim) {
        CHECK(fragment::load(s, section.data(), t, dim) == 0u);
      }
    }
  }
  CHECK(poisoned == 2);
}
