// SPDX-License-Identifier: Apache-2.0
//! @file The product of a section with query rows or rows of weights. Included once per target by
//! targets.hpp.

//! Gains and biases of all groups of a section; those of the section `next` are fetched in the background.
template <class Format>
KVCRUMB_TARGET_INLINE void load_parameters(section_side const& side, std::byte const* section,
                                           std::byte const* next) noexcept {
  using param_type = typename Format::param_type;
  constexpr bias_form form = Format::bias;
  int const count = side.plan.groups * side.plan.owners();
  std::byte const* const first = section + side.plan.code_bytes;
  constexpr int bytes = static_cast<int>(sizeof(param_type));
  float *const gain = side.gain, *const bias = side.bias;  // copies: stores through them may alias `side`
  float const multiple = side.multiple;
  std::int64_t const stored = static_cast<std::int64_t>(count) * bytes * Format::planes;
  for (std::int64_t i = 0; i < stored; i += 64)
    ops::prefetch(next + side.plan.code_bytes + i);
  for (int i = 0; i < count; i += 16) {
    f32x16 const m0 = load_stored(first + i * bytes, param_type{});
    store(gain + i, m0);
    f32x16 constant = m0 * splat(multiple);
    if constexpr (form != bias_form::multiple) {
      constant = load_stored(first + (count + i) * bytes, param_type{});
      if constexpr (form == bias_form::half_cell) constant = ops::multiply_add(m0, splat(0.5f), constant);
      if constexpr (form == bias_form::point) constant = -(constant * m0);
    }
    store(bias + i, constant);
  }
}

//! Splits n values x (a multiple of 64) into two bytes each, x = scale * (256 high + low) + a rest, |x /
//! scale| <= 32512, and adds the rests to `rest`, which becomes NaN if x is not finite. `largest` is the bit
//! pattern of the largest magnitude. Returns scale, 0 if all of x is below 1e-34.
KVCRUMB_TARGET_INLINE float split_terms(float const* x, int n, std::int32_t largest, std::int8_t* high,
                                        std::int8_t* low, f32x16& rest) noexcept {
  float const top = float_from_bits(static_cast<std::uint32_t>(largest));
  bool const any = top >= 1e-34f;
  float const scale = any ? top * (1.0f / 32512.0f) : 0.0f;
  f32x16 const by = splat(any ? 32512.0f / top : 0.0f), back = splat(-scale);
  for (int i = 0; i < n; i += 64) {
    i32x16 v[4];
    KVCRUMB_TARGET_UNROLL
    for (int j = 0; j < 4; ++j) {
      f32x16 const value = load(x + i + 16 * j);
      v[j] = ops::round(value * by);
      rest += ops::multiply_add(to_floats(v[j]), back, value);
    }
    store_terms(v, high + i, low + i);
  }
  return scale;
}

//! Scales and constants of 8 rows each become factors of the rows of a 16-row vector in operand order.
KVCRUMB_TARGET_INLINE f32x16 spread_rows(float const* eights, int row, bool equal) noexcept {
  float const* const of_block = eights + (row & ~31) / 8;
  return equal ? splat(of_block[0]) : ops::spread(of_block);
}

//! -1 where the column at operand places first, first + 1, ... lies in [begin, end).
KVCRUMB_TARGET_INLINE i32x16 columns_between(int first, int begin, int end) noexcept {
  i32x16 place;
  for (int i = 0; i < 16; ++i)
    place[i] = operand_place(first + i);
  return (place >= begin) & (place < end);
}

//! Sums of codes and operands, integers or, with side.exact, floats in the same memory.
template <int Bits, bool Levels, int H>
KVCRUMB_TARGET_INLINE void add_up(section_side const& side, std::byte const* codes,
                                  std::byte const* const (&operands)[H], std::int32_t* const (&sums)[H],
                                  int k_begin, int k_end, std::byte const* next) noexcept {
  if (side.exact) {
    for (int h = 0; h < H; ++h)
      sum_exact<Bits, Levels>(side.plan, side.sets, codes, reinterpret_cast<float const*>(operands[h]),
                              reinterpret_cast<float*>(sums[h]), k_begin, k_end, side.levels.level);
  } else {
    dot_section<Bits, Levels, H>(side.plan, side.sets, codes, operands, sums, k_begin, k_end, &side.levels,
                                 next);
  }
}
KVCRUMB_TARGET_INLINE f32x16 load_sums(std::int32_t const* sums, bool exact) noexcept {
  i32x16 const v = load(sums);
  return exact ? floats_of(v) : to_floats(v);
}

//! y[h][row] = sum over the columns of x_hat[row][column] * x[h][column], columns and rows in operand order;
//! added to y or stored. With `nonzero` columns whose x is 0 take no part, whatever their parameters are.
template <class Format, int H>
void multiply_section(section_side const& side, multiply_memory const& memory, std::byte const* codes,
                      float const* const (&x)[H], bool nonzero, bool add, float* const (&y)[H],
                      std::byte const* next) noexcept {
  constexpr bool levels = Format::has_levels;
  constexpr int bits = Format::bits;
  section_plan const p = side.plan;  // a copy: stores may alias it otherwise
  int const padded = padded_columns(p);
  for (int c = p.columns; c < padded; c += 16)
    store(memory.folded + c, f32x16{});
  float const unit = levels && !side.exact ? 256.0f * side.levels.step : 1.0f;
  std::byte const* operands[H];
  std::int32_t* sums[H];
  for (int h = 0; h < H; ++h) {
    operands[h] = memory.operands[h];
    sums[h] = memory.sums[h];
  }
  i32x16 const magnitude = i32x16{} + 0x7FFFFFFF;
  if (p.column_owned) {
    for (int h = 0; h < H; ++h) {
      float *const folded = memory.folded, *const scales = memory.scales[h],
                   *const constants = memory.constants[h];
      float const* const x_h = x[h];
      for (int group = 0; group < p.groups; ++group) {
        float const *const gain = side.gain + group * p.columns, *const bias = side.bias + group * p.columns;
        i32x16 largest{};
        f32x16 constant{};
        for (int c = 0; c < p.columns; c += 16) {
          f32x16 const value = load(x_h + c);
          f32x16 u = value * load(gain + c), v = load(bias + c);
          if (nonzero) {
            u = ops::unless_zero(value, u);
            v = ops::unless_zero(value, v);
          }
          constant = ops::multiply_add(value, v, constant);
          store(folded + c, u);
          largest = ops::larger(largest, bits_of(u) & magnitude);
        }
        float scale = unit;
        if (side.exact) {
          std::memcpy(memory.exact + static_cast<std::int64_t>(group) * padded, folded,
                      static_cast<std::size_t>(padded) * sizeof(float));
        } else {
          std::int8_t* const high = memory.terms + static_cast<std::int64_t>(group) * 2 * padded;
          f32x16 rest{};
          scale *= split_terms(folded, padded, ops::largest(largest), high, high + padded, rest);
          constant =
              ops::multiply_add(rest, splat(side.mean_unit), constant);  // as if every code were the mean one
        }
        float const offset = ops::sum(constant);
        int const end = (group + 1) * p.group < p.rows ? (group + 1) * p.group : p.rows;
        for (int row = group * p.group; row < end; row += 8) {
          scales[row / 8] = scale;
          constants[row / 8] = offset;
        }
      }
      if (side.exact) {
        build_exact_operand(p, side.sets, memory.exact, reinterpret_cast<float*>(memory.operands[h]));
      } else {
        build_operand(p, side.sets, memory.terms, memory.operands[h]);
      }
    }
    add_up<bits, levels, H>(side, codes, operands, sums, 0, p.k_units, next);
    bool const equal = p.group % 32 == 0;
    for (int h = 0; h < H; ++h) {
      float *const out = y[h], *const scales = memory.scales[h], *const constants = memory.constants[h];
      std::int32_t const* const sum = sums[h];
      for (int row = 0; row < p.rows; row += 16) {
        f32x16 const base = add ? load(out + row) : f32x16{};
        f32x16 const total =
            ops::multiply_add(load_sums(sum + row, side.exact), spread_rows(scales, row, equal),
                              spread_rows(constants, row, equal));
        store(out + row, total + base);
      }
    }
    return;
  }
  for (int group = 0; group < p.groups; ++group) {
    int const begin = group * p.group, end = begin + p.group < p.columns ? begin + p.group : p.columns;
    float scale[H], total[H], rests[H];
    for (int h = 0; h < H; ++h) {
      i32x16 largest{};
      f32x16 sum{};
      for (int c = 0; c < p.columns; c += 16) {
        f32x16 const value = floats_of(bits_of(load(x[h] + c)) & columns_between(c, begin, end));
        sum += value;
        store(memory.folded + c, value);
        largest = ops::larger(largest, bits_of(value) & magnitude);
      }
      total[h] = ops::sum(sum);
      rests[h] = 0.0f;
      if (side.exact) {
        scale[h] = ops::largest(largest) != 0 ? unit : 0.0f;
        build_exact_operand(p, side.sets, memory.folded, reinterpret_cast<float*>(memory.operands[h]));
      } else {
        f32x16 rest{};
        scale[h] = unit * split_terms(memory.folded, padded, ops::largest(largest), memory.terms,
                                      memory.terms + padded, rest);
        rests[h] = ops::sum(rest) * side.mean_unit;
        build_operand(p, side.sets, memory.terms, memory.operands[h]);
      }
    }
    int const first = begin / p.unit_columns(), last = (end - 1) / p.unit_columns() + 1;
    add_up<bits, levels, H>(side, codes, operands, sums, first, last, next);
    next += static_cast<std::int64_t>(last - first) * p.p_units * 512;
    float const *const gain = side.gain + group * p.rows, *const bias = side.bias + group * p.rows;
    for (int h = 0; h < H; ++h) {
      bool const absent = nonzero && scale[h] == 0.0f && total[h] == 0.0f;  // its parameters may be anything
      if (absent && (add || group > 0)) continue;
      for (int row = 0; row < p.rows; row += 16) {
        if (absent) {
          store(y[h] + row, f32x16{});
          continue;
        }
        f32x16 const base = add || group > 0 ? load(y[h] + row) : f32x16{};
        f32x16 const product =
            ops::multiply_add(load_sums(memory.sums[h] + row, side.exact), splat(scale[h]), splat(rests[h]));
        f32x16 const offset = ops::multiply_add(load(bias + row), splat(total[h]), base);
        store(y[h] + row, ops::multiply_add(product, load(gain + row), offset));
      }
    }
  }
}
