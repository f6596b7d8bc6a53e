// SPDX-License-Identifier: Apache-2.0
//! @file Vectors of 64 bytes made of registers of `register_bytes`. Not left to the compiler: g++ 12.2 passes
//! vectors wider than a register through memory, piece by piece, and loads them back as other pieces, which
//! waits for the stores. Included once by targets.hpp for each target with narrower registers;
//! vectors_whole.inl has the same names for the others.

//! A vector as its halves. Element by element operations with another one or with a number.
template <class Half>
struct halved {
  using half = Half;
  Half low, high;
};
template <class Half>
halved(Half, Half) -> halved<Half>;
template <class Vector>
inline constexpr bool is_halved = false;
template <class Half>
inline constexpr bool is_halved<halved<Half>> = true;

template <class Number, int Count>
struct vector_of {
  using half = typename vector_of<Number, Count / 2>::type;
  using type = halved<half>;
};
template <class Number, int Count>
  requires(Count * sizeof(Number) == register_bytes)
struct vector_of<Number, Count> {
  using type __attribute__((vector_size(register_bytes))) = Number;
};
using f32x16 = vector_of<float, 16>::type;
using i32x16 = vector_of<std::int32_t, 16>::type;
using u32x16 = vector_of<std::uint32_t, 16>::type;
using u64x8 = vector_of<std::uint64_t, 8>::type;
using i16x32 = vector_of<std::int16_t, 32>::type;
using u16x32 = vector_of<std::uint16_t, 32>::type;
using u16x16 = vector_of<std::uint16_t, 16>::type;

//! The type of the elements.
template <class Vector>
struct element_type {
  using type = std::remove_cvref_t<decltype(Vector{}[0])>;
};
template <class Half>
struct element_type<halved<Half>> : element_type<Half> {};
template <class Vector>
using element = typename element_type<Vector>::type;

KVCRUMB_HALVED_OPERATOR(+)
KVCRUMB_HALVED_OPERATOR(-)
KVCRUMB_HALVED_OPERATOR(*)
KVCRUMB_HALVED_OPERATOR(/)
KVCRUMB_HALVED_OPERATOR(&)
KVCRUMB_HALVED_OPERATOR(|)
KVCRUMB_HALVED_OPERATOR(^)
KVCRUMB_HALVED_OPERATOR(<<)
KVCRUMB_HALVED_OPERATOR(>>)
KVCRUMB_HALVED_OPERATOR(==)
KVCRUMB_HALVED_OPERATOR(!=)
KVCRUMB_HALVED_OPERATOR(<)
KVCRUMB_HALVED_OPERATOR(>=)
template <class Half>
KVCRUMB_TARGET_INLINE halved<Half> operator~(halved<Half> const& a) noexcept {
  return {~a.low, ~a.high};
}
template <class Half>
KVCRUMB_TARGET_INLINE halved<Half> operator-(halved<Half> const& a) noexcept {
  return {-a.low, -a.high};
}
template <class Half, class With>
KVCRUMB_TARGET_INLINE halved<Half>& operator+=(halved<Half>& a, With const& b) noexcept {
  return a = a + b;
}
template <class Half, class With>
KVCRUMB_TARGET_INLINE halved<Half>& operator-=(halved<Half>& a, With const& b) noexcept {
  return a = a - b;
}
template <class Half, class With>
KVCRUMB_TARGET_INLINE halved<Half>& operator&=(halved<Half>& a, With const& b) noexcept {
  return a = a & b;
}
template <class Half, class With>
KVCRUMB_TARGET_INLINE halved<Half>& operator|=(halved<Half>& a, With const& b) noexcept {
  return a = a | b;
}

template <class To, class From>
KVCRUMB_TARGET_INLINE To cast(From const& v) noexcept {
  if constexpr (is_halved<To>) {
    return {cast<typename To::half>(v.low), cast<typename To::half>(v.high)};
  } else {
    return reinterpret_cast<To>(v);
  }
}
template <class To, class From>
KVCRUMB_TARGET_INLINE To convert(From const& v) noexcept {
  if constexpr (is_halved<To>) {
    return {convert<typename To::half>(v.low), convert<typename To::half>(v.high)};
  } else {
    return __builtin_convertvector(v, To);
  }
}
template <class Vector>
KVCRUMB_TARGET_INLINE Vector load_as(void const* p) noexcept {
  if constexpr (is_halved<Vector>) {
    using half = typename Vector::half;
    return {load_as<half>(p), load_as<half>(static_cast<char const*>(p) + sizeof(half))};
  } else {
    Vector v;
    std::memcpy(&v, p, sizeof v);
    return v;
  }
}
template <class Vector>
KVCRUMB_TARGET_INLINE void store_as(void* p, Vector const& v) noexcept {
  if constexpr (is_halved<Vector>) {
    store_as(p, v.low);
    store_as(static_cast<char*>(p) + sizeof v.low, v.high);
  } else {
    std::memcpy(p, &v, sizeof v);
  }
}
template <class Vector>
KVCRUMB_TARGET_INLINE Vector filled(element<Vector> x) noexcept {
  if constexpr (is_halved<Vector>) {
    auto const v = filled<typename Vector::half>(x);
    return {v, v};
  } else {
    return Vector{} + x;
  }
}
