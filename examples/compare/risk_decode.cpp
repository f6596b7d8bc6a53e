// SPDX-License-Identifier: Apache-2.0
#include "risk_decode.hpp"

#include <algorithm>
#include <array>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace kvcrumb_compare {

namespace {

struct family {
  std::string_view name;
  decode_function* decode;
};

constexpr std::array<family, 17> families{{{"kivi2", decode_kivi},
                                           {"kivi4", decode_kivi},
                                           {"ott2", decode_kivi},
                                           {"nqkv4", decode_rows},
                                           {"qserve4", decode_rows},
                                           {"q8_0", decode_rows},
                                           {"q4_0", decode_rows},
                                           {"crumb2", decode_kivi},
                                           {"turboquant2", decode_rows},
                                           {"turboquant3", decode_rows},
                                           {"turboquant4", decode_rows},
                                           {"oscar2", decode_grouped},
                                           {"kvarn", decode_grouped},
                                           {"kvarn2", decode_grouped},
                                           {"kitty", decode_grouped},
                                           {"saw_int4", decode_rows},
                                           {"nvfp4", decode_rows}}};

constexpr auto names = [] {
  std::array<std::string_view, families.size()> all{};
  for (std::size_t i = 0; i < all.size(); ++i)
    all[i] = families[i].name;
  return all;
}();

}  // namespace

std::span<std::string_view const> decodable_schemes() { return names; }

result<decoded_layer> decode_layer(std::string_view scheme, recorded_layer const& layer,
                                   evaluation_settings const& settings) {
  if (layer.value_dim != layer.head_dim) {
    return failure{fmt::format("layer {}: keys have {} channels and values {}; they must be equal",
                               layer.number, layer.head_dim, layer.value_dim)};
  }
  if (scheme == "qserve4_centred") return decode_rows(scheme, layer, settings);
  auto const at = std::find_if(families.begin(), families.end(), [&](auto& f) { return f.name == scheme; });
  if (at == families.end()) {
    return failure{
        fmt::format("'{}' cannot be predicted; there are {}", scheme, fmt::join(decodable_schemes(), " "))};
  }
  return at->decode(scheme, layer, settings);
}

}  // namespace kvcrumb_compare
