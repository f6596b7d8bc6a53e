// SPDX-License-Identifier: Apache-2.0
//! @file base_logits: the log-probabilities that all schemes are compared with, in memory and as a file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "result.hpp"

namespace kvcrumb_lm {

//! What a base belongs to. Two bases with equal keys hold the same numbers up to rounding.
struct base_key {
  std::uint64_t model = 0;  //!< model::hash
  std::uint64_t text = 0;   //!< hash of the token numbers and lengths of all windows
  std::uint64_t rows = 0;   //!< predicted tokens, window after window
  std::uint64_t vocabulary = 0;
};

//! Natural log-probabilities [rows][vocabulary] as f32, or as f16 in half the space (then a divergence has a
//! floor: docs/language_model.md).
//!
//! File, little-endian: 16 bytes "kvcrumb-lm base\n"; u32 version 1; u32 bytes of a number, 4 or 2; u64
//! model, text, rows, vocabulary; then the numbers. Nothing behind them.
class base_logits {
 public:
  base_logits() = default;
  base_logits(base_key const& key, bool half);

  base_key const& key() const noexcept { return key_; }
  bool half() const noexcept { return half_; }

  void set_row(std::uint64_t row, std::span<float const> values);
  void read_row(std::uint64_t row, std::span<float> values) const;

  //! Writes beside `path` and renames, so that no half of a file stays. An error text, empty if all is well.
  std::string save(std::filesystem::path const& path) const;

  //! Refused with a reason: another kind of file, one that is cut or too long, another model, another text.
  static kvcrumb_compare::result<base_logits> load(std::filesystem::path const& path,
                                                   base_key const& expected);

 private:
  base_key key_;
  bool half_ = false;
  std::vector<float> floats_;
  std::vector<std::uint16_t> halves_;
};

}  // namespace kvcrumb_lm
