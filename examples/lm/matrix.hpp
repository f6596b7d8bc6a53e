// SPDX-License-Identifier: Apache-2.0
//! @file matrix: the weights of a linear layer, packed for products with a few or many rows.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "workers.hpp"

namespace kvcrumb_lm {

//! A matrix of `outputs` rows and `inputs` columns, fp32, kept in panels of 16 outputs:
//! panel p holds [inputs][16], the outputs 16 p to 16 p + 15; missing ones are 0.
class matrix {
 public:
  static constexpr int panel = 16;

  matrix() = default;
  explicit matrix(int inputs) : inputs_(inputs) {}

  //! Adds rows [count][inputs] below those that are there, and their biases (empty: none).
  void add_rows(std::span<float const> rows, std::span<float const> biases = {});

  int inputs() const noexcept { return inputs_; }
  int outputs() const noexcept { return outputs_; }

  //! Row o, as it was added, into row[0 ... inputs).
  void read_row(int o, float* row) const;

  //! y[r][o] = bias[o] + <row o, x[r]> for `rows` rows of x [rows][inputs]; y is [rows][outputs]. A sum over
  //! the inputs is in fp32, in one order for each compiler and processor.
  void multiply(float const* x, std::int64_t rows, float* y, workers& threads) const;

 private:
  int inputs_ = 0, outputs_ = 0;
  std::vector<float> panels_, biases_;
};

}  // namespace kvcrumb_lm
