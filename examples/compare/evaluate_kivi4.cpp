// SPDX-License-Identifier: Apache-2.0
#include "evaluate_kivi.hpp"

namespace kvcrumb_compare {

result<scheme_result> evaluate_kivi4(std::string_view name, recorded_layers const& recorded,
                                     std::span<exact_layer const> exact, evaluation_settings const& settings,
                                     std::function<void()> const& advance) {
  return evaluate_kivi<4>(name, recorded, exact, settings, advance);
}

}  // namespace kvcrumb_compare
