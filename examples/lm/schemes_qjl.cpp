// SPDX-License-Identifier: Apache-2.0
//! @file QJL, with twice as many signs as a head of 128 channels has (64 or less: 128).
#include <kvcrumb/schemes/qjl.hpp>

#include "layer_of.hpp"

namespace kvcrumb_lm {

namespace {

struct projection_memory {
  std::vector<float> values;
  kvcrumb::sketch_projection projection;
};

//! One orthogonal projection from seed 1 for all layers; outlier channels per 32 tokens.
template <int Bits>
result<std::unique_ptr<kv_layer>> make(std::string_view name, layer_request const& r) {
  auto memory = std::make_shared<projection_memory>();
  memory->values.assign(static_cast<std::size_t>(Bits * r.head_dim), 0.0f);
  if (kvcrumb::status const s = kvcrumb::fill_projection(kvcrumb::projection_kind::orthogonal, 1, Bits,
                                                         r.head_dim, memory->values, memory->projection);
      s != kvcrumb::status::ok)
    return failure{fmt::format("{}: {} (head_dim {})", name, to_string(s), r.head_dim)};
  auto scheme = kvcrumb::schemes::qjl<Bits, 32>(memory->projection);
  scheme.flush = flush_of(r);
  return make_layer(name, scheme, r, memory);
}

}  // namespace

result<std::unique_ptr<kv_layer>> make_qjl(std::string_view name, layer_request const& r) {
  return r.head_dim <= 64 ? make<128>(name, r) : make<256>(name, r);
}

}  // namespace kvcrumb_lm
