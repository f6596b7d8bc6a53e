// SPDX-License-Identifier: Apache-2.0
//! @file The working memory of a host kernel: what each query row and what the pass over a kv head needs.
#pragma once

#include "kvcrumb/host/background.hpp"
#include "kvcrumb/host/format.hpp"
#include "kvcrumb/host/matrix_unit.hpp"
#include "kvcrumb/host/section_plan.hpp"
#include "kvcrumb/softmax_state.hpp"

namespace kvcrumb::inline v0::host {

inline constexpr int most_rows_together = 8;  //!< query rows that share the unpacking of a tile
inline constexpr int most_vector_rows = 2;    //!< without a matrix unit
inline constexpr float log2_e = 1.44269504088896341f;
inline constexpr float ln_2 = 0.693147180559945309f;

//! softmax_state with logits in units of ln 2.
struct row_state {
  float max = negative_infinity;
  float sum = 0.0f;

  //! Raises the maximum to at least m and returns the factor for what was summed on the old scale.
  float raise(float m) noexcept {
    if (!(m > max) && !(m != m)) return 1.0f;
    float const factor = max == negative_infinity ? 0.0f : ::exp2f(max - m);
    sum *= factor;
    max = m;
    return factor;
  }
};

//! One query row: a query head and a query token.
struct query_row {
  float* query = nullptr;         //!< [head_dim], times the scale of the logits
  float* prepared = nullptr;      //!< [head_dim], transformed, in operand order
  float constant = 0.0f;          //!< what the transform adds to every logit
  float* tile_output = nullptr;   //!< [head_dim], in operand order
  float* exact_output = nullptr;  //!< [head_dim]
  row_state *tiles = nullptr, *exact = nullptr;
};

//! One side of a tile as kernels see it, and their working memory.
struct section_side {
  section_plan plan;
  operand_sets sets;
  level_table levels;
  float multiple = 0.0f;   //!< bias_form::multiple
  float mean_unit = 0.0f;  //!< of all codes, less the base of a codebook
  bool exact = false;      //!< products in binary32
  matrix_unit unit = matrix_unit::none;
  std::byte* widened = nullptr;  //!< working memory: codes of a 3-bit section with 4 bits each

  //! All operands can be prepared before the first product; otherwise columns come group by group.
  bool whole() const noexcept { return plan.column_owned || plan.groups == 1; }
};

//! Working memory of the preparation of operands; what it holds is used up before the next one begins.
struct prepare_memory {
  float* folded[most_rows_together] = {};       //!< [padded columns]
  float* constant[most_rows_together] = {};     //!< [16], to be summed
  std::int8_t* terms[most_rows_together] = {};  //!< [row groups][2][padded columns]
  float* exact = nullptr;                       //!< [row groups][padded columns], binary32 only
};

//! Working memory of products by a matrix unit: unpacked codes of one step, products of two.
struct matrix_scratch {
  std::byte* b = nullptr;     //!< unpacked codes
  std::int32_t* c = nullptr;  //!< [2][products][matrix_batch::sums]
  int products = 0;

  //! Tiles of a step: those of one unit, but at least four.
  static constexpr int step_tiles(int shifts) noexcept { return shifts > 4 ? shifts : 4; }
  //! Unpacked codes and products of a step.
  static int blocks(section_side const& s) noexcept {
    return step_tiles(s.plan.shifts) * planes(s) * matrix_depth(s.plan);
  }
  static int products_of(section_side const& s) noexcept {
    int most = 1;
    for (int i = 0; i < s.sets.count; ++i)
      most = s.sets.distinct_in[i] > most ? s.sets.distinct_in[i] : most;
    return step_tiles(s.plan.shifts) * planes(s) * most;
  }

 private:
  static int planes(section_side const& s) noexcept { return s.levels.count > 0 ? 2 : 1; }
};

//! What products read and write.
struct product_memory {
  std::byte* operands[most_vector_rows] = {};   //!< as build_operand
  std::byte* matrix = nullptr;                  //!< as build_matrix_operand
  std::int32_t* sums[most_rows_together] = {};  //!< [rows]
  float* scales[most_rows_together] = {};       //!< [rows / 8], of 8 rows each
  float* constants[most_rows_together] = {};    //!< [rows / 8]
};

//! Everything that the pass over one kv head works with.
struct head_memory {
  query_row* rows = nullptr;
  float* scores[most_rows_together] = {};  //!< [tile_tokens]
  std::int32_t* seen = nullptr;            //!< [tile_tokens]
  prepare_memory shared;
  product_memory
      keys[2];  //!< they share operands: those of the next tile are prepared after the last product
  product_memory values;
  matrix_scratch scratch;

  query_row const& row(int i) const noexcept { return rows[i]; }
};

//! Hands out pieces of the caller's memory; with null memory it only counts.
class memory_pieces {
 public:
  explicit memory_pieces(std::byte* memory) noexcept : memory_{memory} {}

  template <class T>
  T* take(std::int64_t count) noexcept {
    std::byte* const at = memory_ == nullptr ? nullptr : memory_ + used_;
    used_ += align_up(count * static_cast<std::int64_t>(sizeof(T)), 64);
    return reinterpret_cast<T*>(at);
  }
  std::int64_t used() const noexcept { return used_; }

 private:
  std::byte* memory_;
  std::int64_t used_ = 0;
};

}  // namespace kvcrumb::inline v0::host
