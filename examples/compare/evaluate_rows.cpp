// SPDX-License-Identifier: Apache-2.0
#include "evaluate_scheme.hpp"

namespace kvcrumb_compare {

result<scheme_result> evaluate_rows(std::string_view name, recorded_layers const& recorded,
                                    std::span<exact_layer const> exact, evaluation_settings const& settings,
                                    std::function<void()> const& advance) {
  auto const with = [&](auto const& scheme) {
    return evaluate_scheme(
        name, [&](int /*layer*/) { return scheme; }, recorded, exact, settings, advance);
  };
  if (name == "fp16") return with(kvcrumb::schemes::fp16());
  if (name == "nqkv4") return with(kvcrumb::schemes::nqkv4());
  if (name == "qserve4") return with(kvcrumb::schemes::qserve4());
  if (name == "q8_0") return with(kvcrumb::schemes::q8_0());
  if (name == "q4_0") return with(kvcrumb::schemes::q4_0());
  return failure{fmt::format("no scheme is named '{}'", name)};
}

}  // namespace kvcrumb_compare
