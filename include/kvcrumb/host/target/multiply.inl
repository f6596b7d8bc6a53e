// SPDX-License-Identifier: Apache-2.0
//! @file The product of a section with query rows or rows of weights. Included once per target by
//! targets.hpp.

//! y[h][row] = sum over the columns of x_hat[row][column] * x[h][column], columns and rows in operand order;
//! added to y or stored. With `nonzero` columns whose x is 0 take no part, whatever their parameters are. In
//! three phases: the steps of prepare in order, multiply, finish. Where the columns have to come group by
//! group (side.whole) finish does everything.
template <class Format>
struct section_product {
  static constexpr bool levels = Format::has_levels;
  static constexpr int bits = Format::bits;
  static constexpr std::int64_t param_bytes = sizeof(typename Format::param_type);
  static constexpr bool may_use_matrix = has_matrix && bits > 1;

  section_side const* side = nullptr;
  prepare_memory const* memory = nullptr;
  product_memory const* at = nullptr;
  matrix_scratch const* scratch = nullptr;
  std::byte const* section = nullptr;
  int count = 0;  //!< of x and y; more than most_vector_rows only with a matrix unit
  float const* x[most_rows_together] = {};
  float* y[most_rows_together] = {};
  bool nonzero = false, add = false;
  bool one_at_a_time = false;  //!< steps in the background multiply too, and there is one matrix unit
  bool fresh = true;           //!< false: the section before was the same one, and is widened already

  //! Steps of `prepare`; widening comes first.
  static int prepare_steps(section_side const& s) noexcept {
    if (!s.whole()) return 0;
    return 1 + (s.plan.column_owned ? 2 * s.plan.groups + 1 : 2);
  }
  void prepare(int step) const noexcept {
    if (step == 0) return widen_codes();
    for (int h = 0; h < count; ++h) {
      if (!side->plan.column_owned) {
        step == 1 ? take_weights(h, 0, side->plan.columns) : round_weights(h);
      } else if (int const group = (step - 1) / 2; group == side->plan.groups) {
        build(h);
      } else {
        step % 2 != 0 ? fold(h, group) : round(h, group);
      }
    }
  }

  //! Fetches the section `next` meanwhile.
  void multiply(background& other, std::byte const* next) const noexcept {
    bool const matrix = by_matrix() && side->whole();  // fetches parameters with the codes
    std::int64_t const end = stored_bytes();
    for (std::int64_t i = side->plan.code_bytes; i < end && !matrix; i += 64)
      ops::prefetch(next + i);
    if (one_at_a_time && matrix) other.rest();
    if (side->whole()) {
      add_up(0, side->plan.k_units, next, other);
    } else {
      for (std::int64_t i = 0; i < side->plan.line_bytes; i += 64)
        ops::prefetch(next + i);
    }
    other.rest();
  }

  void finish() const noexcept {
    if (side->plan.column_owned) {
      for (int h = 0; h < count; ++h)
        finish_columns(h);
      return;
    }
    if (!side->whole()) widen_codes();  // not before: by now the next job has been prepared
    for (int group = 0; group < side->plan.groups; ++group) {
      if (!side->whole()) multiply_group(group);
      for (int h = 0; h < count; ++h)
        finish_rows(h, group);
    }
  }

 private:
  void widen_codes() const noexcept {
    if constexpr (Format::stored_bits == 3) {
      if (fresh) widen(*side, section);
    }
  }
  std::byte const* codes() const noexcept { return Format::stored_bits == 3 ? side->widened : section; }
  //! Parameters of one group. A copy of what is needed: stores of floats may alias everything else.
  struct group_params {
    std::byte const* first;
    std::int64_t plane;
    float multiple;
    KVCRUMB_TARGET_INLINE params16<Format> operator()(int owner) const noexcept {
      return params16<Format>::at(first + owner * param_bytes, plane, multiple);
    }
  };
  KVCRUMB_TARGET_INLINE group_params params(int group) const noexcept {
    std::int64_t const owners = side->plan.owners();
    return {section + side->plan.code_bytes + group * owners * param_bytes,
            side->plan.groups * owners * param_bytes, side->multiple};
  }
  //! Of codes and parameters.
  std::int64_t stored_bytes() const noexcept {
    return side->plan.code_bytes +
           std::int64_t{side->plan.groups} * side->plan.owners() * param_bytes * Format::planes;
  }
  //! Whether 32 neighbouring rows have the same scale and constant: only the first of their four is used.
  bool equal_blocks() const noexcept { return side->plan.group % 32 == 0; }
  float unit() const noexcept { return levels && !side->exact ? 256.0f * side->levels.step : 1.0f; }
  KVCRUMB_TARGET_INLINE void clear_padding(int h) const noexcept {
    int const padded = padded_columns(side->plan);
    for (int c = side->plan.columns; c < padded; c += 16)
      store(memory->folded[h] + c, f32x16{});
  }

  //! Sums of codes and operands, integers or, with side->exact, floats in the same memory.
  KVCRUMB_TARGET_INLINE void add_up(int k_begin, int k_end, std::byte const* next,
                                    background& other) const noexcept {
    if (side->exact) {
      for (int h = 0; h < count; ++h)
        sum_exact<bits, levels>(side->plan, side->sets, codes(),
                                reinterpret_cast<float const*>(at->operands[h]),
                                reinterpret_cast<float*>(at->sums[h]), k_begin, k_end, side->levels.level);
    } else if (by_matrix()) {
      if constexpr (may_use_matrix) {
        matrix_section<bits, levels>{side->plan,  side->sets,      side->unit, count,
                                     k_begin / 4, (k_end + 3) / 4, codes(),    at->matrix,
                                     at->sums,    &side->levels,   *scratch}
            .run({next, next + stored_bytes()}, other);
      }
    } else if (count == 2) {
      add_up_rows<2>(k_begin, k_end, next, other);
    } else {
      add_up_rows<1>(k_begin, k_end, next, other);
    }
  }
  template <int H>
  KVCRUMB_TARGET_INLINE void add_up_rows(int k_begin, int k_end, std::byte const* next,
                                         background& other) const noexcept {
    std::byte const* operands[H];
    std::int32_t* sums[H];
    for (int h = 0; h < H; ++h) {
      operands[h] = at->operands[h];
      sums[h] = at->sums[h];
    }
    dot_section<bits, levels, H>(side->plan, side->sets, codes(), operands, sums, k_begin, k_end,
                                 &side->levels, next, other);
  }
  //! Columns outside of k_begin and k_end then count as well, and must be 0 in the operand.
  bool by_matrix() const noexcept { return may_use_matrix && side->unit != matrix_unit::none && count > 1; }
  //! Of the columns of one group.
  void multiply_group(int group) const noexcept {
    section_plan const& p = side->plan;
    int const begin = group * p.group, end = begin + p.group < p.columns ? begin + p.group : p.columns;
    for (int h = 0; h < count; ++h) {
      take_weights(h, begin, end);
      round_weights(h);
    }
    background none;
    add_up(begin / p.unit_columns(), (end - 1) / p.unit_columns() + 1, section, none);
  }
  static KVCRUMB_TARGET_INLINE f32x16 load_sums(std::int32_t const* sums, bool exact) noexcept {
    i32x16 const v = load(sums);
    return exact ? floats_of(v) : to_floats(v);
  }

  //! Parameters of columns: x times the gains of a group, and what the biases add.
  KVCRUMB_TARGET_INLINE void fold(int h, int group) const noexcept {
    if (group == 0) clear_padding(h);
    float* const folded = memory->folded[h];
    float const* const from = x[h];
    int const columns = side->plan.columns;
    bool const skip = nonzero;
    group_params const all = params(group);
    i32x16 largest{};
    f32x16 constant{};
    for (int c = 0; c < columns; c += 16) {
      f32x16 const value = load(from + c);
      params16<Format> const p = all(c);
      f32x16 u = value * p.gain, v = p.bias;
      if (skip) {
        u = ops::unless_zero(value, u);
        v = ops::unless_zero(value, v);
      }
      constant = ops::multiply_add(value, v, constant);
      store(folded + c, u);
      largest = ops::larger(largest, bits_of(u) & 0x7FFFFFFF);
    }
    store(memory->constant[h], constant);
    at->scales[h][side->plan.group * group / 8] = side->exact ? 1.0f : scale_of(ops::largest(largest));
  }
  KVCRUMB_TARGET_INLINE void round(int h, int group) const noexcept {
    section_plan const& p = side->plan;
    int const padded = padded_columns(p), first = group * p.group / 8;
    int const end = ((group + 1) * p.group < p.rows ? (group + 1) * p.group : p.rows) / 8;
    float *const scales = at->scales[h], *const constants = at->constants[h];
    f32x16 constant = load(memory->constant[h]);
    float scale = scales[first];
    if (side->exact) {
      std::memcpy(memory->exact + static_cast<std::int64_t>(group) * padded, memory->folded[h],
                  static_cast<std::size_t>(padded) * sizeof(float));
    } else {
      std::int8_t* const high = memory->terms[h] + static_cast<std::int64_t>(group) * 2 * padded;
      f32x16 const rest = split_terms(memory->folded[h], padded, scale, high, high + padded);
      constant =
          ops::multiply_add(rest, splat(side->mean_unit), constant);  // as if every code were the mean one
      scale *= unit();
    }
    float const offset = ops::sum(constant);
    int const step = equal_blocks() ? 4 : 1;
    for (int row = first; row < end; row += step) {
      scales[row] = scale;
      constants[row] = offset;
    }
  }
  KVCRUMB_TARGET_INLINE void build(int h) const noexcept {
    if (side->exact) {
      build_exact_operand(side->plan, side->sets, memory->exact, reinterpret_cast<float*>(at->operands[h]));
    } else {
      build_integers(h);
    }
  }
  KVCRUMB_TARGET_INLINE void finish_columns(int h) const noexcept {
    bool const equal = equal_blocks(), exact = side->exact, more = add;
    int const rows = side->plan.rows;
    float *const out = y[h], *const scales = at->scales[h], *const constants = at->constants[h];
    std::int32_t const* const sums = at->sums[h];
    for (int row = 0; row < rows; row += 16) {
      f32x16 const base = more ? load(out + row) : f32x16{};
      f32x16 const total = ops::multiply_add(load_sums(sums + row, exact), spread_rows(scales, row, equal),
                                             spread_rows(constants, row, equal));
      store(out + row, total + base);
    }
  }

  //! Parameters of rows: x itself of the columns [begin, end). at->scales holds the scale, at->constants what
  //! rounding leaves over and the sum of x.
  void take_weights(int h, int begin, int end) const noexcept {
    clear_padding(h);
    int const columns = side->plan.columns;
    bool const all = begin == 0 && end == columns;
    float* const folded = memory->folded[h];
    float const* const from = x[h];
    i32x16 largest{};
    f32x16 sum{};
    for (int c = 0; c < columns; c += 16) {
      f32x16 value = load(from + c);
      if (!all) value = floats_of(bits_of(value) & columns_between(c, begin, end));
      sum += value;
      store(folded + c, value);
      largest = ops::larger(largest, bits_of(value) & 0x7FFFFFFF);
    }
    int const most = ops::largest(largest);
    at->scales[h][0] = side->exact ? (most != 0 ? 1.0f : 0.0f) : scale_of(most);
    at->constants[h][1] = ops::sum(sum);
  }
  void round_weights(int h) const noexcept {
    at->constants[h][0] = 0.0f;
    if (side->exact) {
      build_exact_operand(side->plan, side->sets, memory->folded[h],
                          reinterpret_cast<float*>(at->operands[h]));
      return;
    }
    int const padded = padded_columns(side->plan);
    f32x16 const rest =
        split_terms(memory->folded[h], padded, at->scales[h][0], memory->terms[h], memory->terms[h] + padded);
    at->constants[h][0] = ops::sum(rest) * side->mean_unit;
    at->scales[h][0] *= unit();
    build_integers(h);
  }
  KVCRUMB_TARGET_INLINE void build_integers(int h) const noexcept {
    if (!by_matrix()) {
      build_operand(side->plan, side->sets, memory->terms[h], at->operands[h]);
    } else if constexpr (may_use_matrix) {
      build_matrix_operand(side->plan, side->sets, memory->terms[h], h, at->matrix);
    }
  }
  KVCRUMB_TARGET_INLINE void finish_rows(int h, int group) const noexcept {
    float const scale = at->scales[h][0], rest = at->constants[h][0], total = at->constants[h][1];
    bool const more = add || group > 0;
    bool const absent = nonzero && scale == 0.0f && total == 0.0f;  // its parameters may be anything
    if (absent && more) return;
    int const rows = side->plan.rows;
    bool const exact = side->exact;
    float* const out = y[h];
    std::int32_t const* const sums = at->sums[h];
    group_params const of_rows = params(group);
    for (int row = 0; row < rows; row += 16) {
      if (absent) {
        store(out + row, f32x16{});
        continue;
      }
      params16<Format> const p = of_rows(row);
      f32x16 const base = more ? load(out + row) : f32x16{};
      f32x16 const product = ops::multiply_add(load_sums(sums + row, exact), splat(scale), splat(rest));
      f32x16 const offset = ops::multiply_add(p.bias, splat(total), base);
      store(out + row, ops::multiply_add(product, p.gain, offset));
    }
  }
};
