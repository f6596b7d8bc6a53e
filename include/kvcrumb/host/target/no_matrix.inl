// SPDX-License-Identifier: Apache-2.0
//! @file What matrix_avx512.inl has, for targets without a matrix unit; none of it is called. Included once
//! per such target by targets.hpp.

inline constexpr bool has_matrix = false;

void build_matrix_operand(section_plan const&, operand_sets const&, std::int8_t const*, int,
                          std::byte*) noexcept;
template <int Bits, bool Levels>
struct matrix_section;
void configure_amx(int) noexcept;
void release_amx() noexcept;
