// SPDX-License-Identifier: Apache-2.0
//! @file Codebook tables: normal-float, Lloyd-Max, E2M1 and the caller's own.
#pragma once

#include <concepts>

#include "kvcrumb/config.hpp"
#include "kvcrumb/numeric/arithmetic.hpp"

namespace kvcrumb::inline v0 {

//! A codebook: `level(code)`, `nearest(x)` and the largest magnitude of its levels.
template <class T>
concept codebook_table = requires(T const t) {
  { T::bits } -> std::convertible_to<int>;
  { T::name } -> std::convertible_to<char const*>;
  { t.level(0u) } -> std::same_as<float>;
  { t.nearest(1.0f) } -> std::same_as<unsigned>;
  { t.max_level() } -> std::same_as<float>;
};

//! Index of the interval of x among ascending thresholds: the number of thresholds that x is strictly above.
template <int N>
KVCRUMB_API unsigned count_below(float const (&thresholds)[N], float x) noexcept {
  unsigned code = 0;
  for (int i = 0; i < N; ++i)
    code += x > thresholds[i] ? 1u : 0u;
  return code;
}

//! NF4: 16 levels of QLoRA (arXiv 2305.14314, appendix E), thresholds strict as in bitsandbytes'
//! dQuantizeNF4.
struct nf4_table {
  static constexpr char const* name = "nf4";
  static constexpr int bits = 4;
  KVCRUMB_API constexpr float level(unsigned code) const noexcept {
    constexpr float levels[16] = {-1.0f,
                                  -0.6961928009986877f,
                                  -0.5250730514526367f,
                                  -0.39491748809814453f,
                                  -0.28444138169288635f,
                                  -0.18477343022823334f,
                                  -0.09105003625154495f,
                                  0.0f,
                                  0.07958029955625534f,
                                  0.16093020141124725f,
                                  0.24611230194568634f,
                                  0.33791524171829224f,
                                  0.44070982933044434f,
                                  0.5626170039176941f,
                                  0.7229568362236023f,
                                  1.0f};
    return levels[code];
  }
  KVCRUMB_API unsigned nearest(float x) const noexcept {
    constexpr float thresholds[15] = {-0.8480964004993439f,   -0.6106329262256622f,  -0.4599952697753906f,
                                      -0.33967943489551544f,  -0.23460740596055984f, -0.13791173323988914f,
                                      -0.045525018125772476f, 0.03979014977812767f,  0.1202552504837513f,
                                      0.2035212516784668f,    0.2920137718319893f,   0.3893125355243683f,
                                      0.5016634166240692f,    0.6427869200706482f,   0.8614784181118011f};
    return count_below(thresholds, x);
  }
  KVCRUMB_API float max_level() const noexcept { return 1.0f; }
};

//! NF3: the same construction with 3 bits (offset 0.9677083, 4 positive, 3 negative levels and zero).
struct nf3_table {
  static constexpr char const* name = "nf3";
  static constexpr int bits = 3;
  KVCRUMB_API constexpr float level(unsigned code) const noexcept {
    constexpr float levels[8] = {-1.0f,       -0.47862916f, -0.21714182f, 0.0f,
                                 0.16093017f, 0.3379152f,   0.562617f,    1.0f};
    return levels[code];
  }
  KVCRUMB_API unsigned nearest(float x) const noexcept {
    constexpr float thresholds[7] = {-0.7393146f, -0.3478855f, -0.10857091f, 0.080465086f,
                                     0.24942268f, 0.4502661f,  0.7813085f};
    return count_below(thresholds, x);
  }
  KVCRUMB_API float max_level() const noexcept { return 1.0f; }
};

//! NF2: the same construction with 2 bits.
struct nf2_table {
  static constexpr char const* name = "nf2";
  static constexpr int bits = 2;
  KVCRUMB_API constexpr float level(unsigned code) const noexcept {
    constexpr float levels[4] = {-1.0f, 0.0f, 0.3379152f, 1.0f};
    return levels[code];
  }
  KVCRUMB_API unsigned nearest(float x) const noexcept {
    constexpr float thresholds[3] = {-0.5f, 0.1689576f, 0.6689576f};
    return count_below(thresholds, x);
  }
  KVCRUMB_API float max_level() const noexcept { return 1.0f; }
};

//! Lloyd-Max levels for N(0, 1) (J. Max, IRE Trans. IT-6, 1960), 1 to 4 bits; multiply by the standard
//! deviation. Mean squared errors 0.36338, 0.117482, 0.034548, 0.009501.
template <int Bits>
struct lloyd_max_table {
  static_assert(Bits >= 1 && Bits <= 4, "kvcrumb::lloyd_max_table: Bits must be in [1, 4]");
  static constexpr char const* name = Bits == 1   ? "lloyd1"
                                      : Bits == 2 ? "lloyd2"
                                      : Bits == 3 ? "lloyd3"
                                                  : "lloyd4";
  static constexpr int bits = Bits;

  KVCRUMB_API constexpr float level(unsigned code) const noexcept {
    constexpr int half = 1 << (Bits - 1);
    int const i = static_cast<int>(code) - half;
    return i >= 0 ? positive(i) : -positive(-1 - i);
  }
  KVCRUMB_API unsigned nearest(float x) const noexcept {
    constexpr int half = 1 << (Bits - 1);
    bool const negative = x < 0.0f;
    float const magnitude = negative ? -x : x;
    constexpr thresholds middle{};
    int i = 0;
    for (int j = 0; j < half - 1; ++j)
      i += magnitude > middle.value[j] ? 1 : 0;
    return static_cast<unsigned>(negative ? half - 1 - i : half + i);
  }
  KVCRUMB_API float max_level() const noexcept { return positive((1 << (Bits - 1)) - 1); }

 private:
  KVCRUMB_API static constexpr float positive(int i) noexcept {
    constexpr float one[1] = {0.7978845608f};
    constexpr float two[2] = {0.4527800346f, 1.5104176087f};
    constexpr float three[4] = {0.2450941773f, 0.7560052489f, 1.3439092613f, 2.1519457917f};
    constexpr float four[8] = {0.1283950299f, 0.3880482939f, 0.6567589957f, 0.9423404451f,
                               1.2562311824f, 1.6180464059f, 2.0690172840f, 2.7325895765f};
    if constexpr (Bits == 1) return one[i];
    if constexpr (Bits == 2) return two[i];
    if constexpr (Bits == 3) return three[i];
    if constexpr (Bits == 4) return four[i];
  }
  //! The middles between neighbouring levels.
  struct thresholds {
    float value[1 << (Bits - 1)] = {};
    constexpr thresholds() noexcept {
      for (int i = 0; i + 1 < 1 << (Bits - 1); ++i)
        value[i] = mul_rn(0.5f, add_rn(positive(i), positive(i + 1)));
    }
  };
};

//! E2M1 (OCP MX, NVFP4): code = sign << 3 | magnitude index, magnitudes 0, 0.5, 1, 1.5, 2, 3, 4, 6; ties go
//! to the even mantissa, values beyond 6 saturate.
struct e2m1_table {
  static constexpr char const* name = "e2m1";
  static constexpr int bits = 4;
  KVCRUMB_API constexpr float level(unsigned code) const noexcept {
    constexpr float magnitudes[8] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f};
    float const m = magnitudes[code & 7u];
    return (code & 8u) != 0 ? -m : m;
  }
  KVCRUMB_API unsigned nearest(float x) const noexcept {
    bool const negative = x < 0.0f;
    float const m = negative ? -x : x;
    unsigned code = 0;
    code += m > 0.25f ? 1u : 0u;   // 0 | 0.5: tie to 0 (even)
    code += m >= 0.75f ? 1u : 0u;  // 0.5 | 1: tie to 1
    code += m > 1.25f ? 1u : 0u;
    code += m >= 1.75f ? 1u : 0u;
    code += m > 2.5f ? 1u : 0u;
    code += m >= 3.5f ? 1u : 0u;
    code += m > 5.0f ? 1u : 0u;
    return negative ? code | 8u : code;
  }
  KVCRUMB_API float max_level() const noexcept { return 6.0f; }
};

//! The caller's own levels, ascending and finite; the nearest level wins, ties go to the lower one.
//! Check with `is_valid` before use: an unsorted table has no defined nearest level.
template <int Bits>
struct user_table {
  static_assert(Bits >= 1 && Bits <= 8, "kvcrumb::user_table: Bits must be in [1, 8]");
  static constexpr char const* name = Bits == 1   ? "user1"
                                      : Bits == 2 ? "user2"
                                      : Bits == 3 ? "user3"
                                      : Bits == 4 ? "user4"
                                      : Bits == 5 ? "user5"
                                      : Bits == 6 ? "user6"
                                      : Bits == 7 ? "user7"
                                                  : "user8";
  static constexpr int bits = Bits;
  float levels[1 << Bits] = {};

  KVCRUMB_API bool is_valid() const noexcept {
    bool ok = is_finite_bits(levels[0]);
    for (int i = 1; i < (1 << Bits); ++i)
      ok = ok && is_finite_bits(levels[i]) && levels[i] > levels[i - 1];
    return ok && max_level() > 0.0f;
  }
  KVCRUMB_API constexpr float level(unsigned code) const noexcept { return levels[code]; }
  KVCRUMB_API unsigned nearest(float x) const noexcept {
    unsigned code = 0;
    for (int i = 0; i + 1 < (1 << Bits); ++i) {
      code += x > mul_rn(0.5f, add_rn(levels[i], levels[i + 1])) ? 1u : 0u;
    }
    return code;
  }
  KVCRUMB_API float max_level() const noexcept {
    float const low = absolute(levels[0]), high = absolute(levels[(1 << Bits) - 1]);
    return low > high ? low : high;
  }
};

}  // namespace kvcrumb::inline v0
