// SPDX-License-Identifier: Apache-2.0
//! @file generation: see generation.hpp.
#include "generation.hpp"

#include <algorithm>
#include <cmath>

namespace kvcrumb_lm {

int pick(std::span<float const> logits, double temperature, double u) {
  auto const top = std::max_element(logits.begin(), logits.end());
  int const best = static_cast<int>(top - logits.begin());
  if (!(temperature > 0.0)) return best;
  auto const weight = [&](float x) {
    return std::exp((static_cast<double>(x) - static_cast<double>(*top)) / temperature);
  };
  double all = 0.0;
  for (float const x : logits)
    all += weight(x);
  double sum = 0.0;
  for (std::size_t i = 0; i < logits.size(); ++i) {
    sum += weight(logits[i]);
    if (sum > u * all) return static_cast<int>(i);
  }
  return best;  // u * all was rounded up to the whole sum
}

double uniform_numbers::next() {
  state_ += 0x9E3779B97F4A7C15u;
  std::uint64_t x = state_;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return static_cast<double>((x ^ (x >> 31)) >> 11) * 0x1p-53;
}

result<std::vector<int>> generate(model const& m, sequence& of, std::span<int const> prompt, int count,
                                  int chunk, sampling const& how, std::span<int const> stop,
                                  workers& threads) {
  if (prompt.empty()) return failure{"the prompt has no token"};
  activations a;
  uniform_numbers numbers(how.seed);
  std::vector<float> logits(static_cast<std::size_t>(m.config.vocabulary));
  std::vector<int> made;
  std::vector<int> next(prompt.begin(), prompt.end());
  while (static_cast<int>(made.size()) < count) {
    std::size_t last = 0;
    for (std::size_t at = 0; at < next.size(); at += static_cast<std::size_t>(chunk)) {
      last = std::min(static_cast<std::size_t>(chunk), next.size() - at);
      step const one{&of, std::span<int const>(next).subspan(at, last)};
      if (std::string error = forward(m, std::span(&one, 1), a, threads); !error.empty())
        return failure{error};
    }
    project_logits(m, a.x.data() + static_cast<std::int64_t>(last - 1) * m.config.hidden, 1, logits.data(),
                   threads);
    next.assign(1, pick(logits, how.temperature, numbers.next()));
    made.push_back(next.front());
    if (std::find(stop.begin(), stop.end(), next.front()) != stop.end()) break;
  }
  return made;
}

}  // namespace kvcrumb_lm
