// SPDX-License-Identifier: Apache-2.0
//! @file generation: a text continued token by token through one cache.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "forward.hpp"

namespace kvcrumb_lm {

struct sampling {
  double temperature = 0.0;  //!< 0: always the most probable token (of equals the first)
  std::uint64_t seed = 1;
};

//! The token that a number u in [0, 1) stands for: the first one at which the probabilities, summed in the
//! order of the tokens, exceed u. Two distributions that are near each other give the same token for most u.
int pick(std::span<float const> logits, double temperature, double u);

//! Numbers in [0, 1) with 53 bits, the same everywhere (splitmix64).
class uniform_numbers {
 public:
  explicit uniform_numbers(std::uint64_t seed) : state_(seed) {}
  double next();

 private:
  std::uint64_t state_;
};

//! Reads the prompt `chunk` tokens at a time and then up to `count` tokens of its own; stops behind a token
//! in `stop`. Token i is drawn with the i-th number of the seed, whatever came before.
result<std::vector<int>> generate(model const& m, sequence& of, std::span<int const> prompt, int count,
                                  int chunk, sampling const& how, std::span<int const> stop,
                                  workers& threads);

}  // namespace kvcrumb_lm
