// SPDX-License-Identifier: Apache-2.0
//! @file Random signs before a rotation: a randomized Hadamard transform.
#pragma once

#include "kvcrumb/description.hpp"
#include "kvcrumb/transform/concept.hpp"
#include "kvcrumb/transform/hadamard.hpp"

namespace kvcrumb::inline v0 {

//! x' = Next(diag(e) x), where the signs e depend on the seed and the channel alone and are the same in all
//! heads. Orthogonal if Next is. Nothing is rounded and nothing is stored. With hadamard<> it spreads rows
//! that the plain transform would concentrate (a constant row becomes one large value there).
template <class Next = hadamard<>>
struct random_signs {
  static constexpr char const* name = "random_signs";
  static constexpr void describe(description& d) noexcept {
    d << name << "+";
    describe_as<Next>(d);
  }
  std::uint64_t seed = 1;
  Next next{};

  //! Whether channel d changes its sign: the top bit of SplitMix64's output number d.
  KVCRUMB_API static constexpr bool flips(std::uint64_t seed, int d) noexcept {
    std::uint64_t z = seed + (static_cast<std::uint64_t>(d) + 1u) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return ((z ^ (z >> 31)) >> 63) != 0u;
  }
  KVCRUMB_API void forward(int head, int head_dim, float* x) const noexcept {
    flip(head_dim, x);
    next.forward(head, head_dim, x);
  }
  KVCRUMB_API float query(int head, int head_dim, float* q) const noexcept {
    flip(head_dim, q);
    return next.query(head, head_dim, q);
  }
  KVCRUMB_API void inverse(int head, int head_dim, float* o, float sum) const noexcept {
    next.inverse(head, head_dim, o, sum);
    flip(head_dim, o);
  }
  std::uint64_t id(int kv_heads, int head_dim) const noexcept {
    return (seed ^ 0xCBF29CE484222325u) * 0x100000001B3u ^ next.id(kv_heads, head_dim);
  }

 private:
  KVCRUMB_API void flip(int head_dim, float* x) const noexcept {
    for (int d = 0; d < head_dim; ++d) {
      if (flips(seed, d)) x[d] = -x[d];
    }
  }
};

}  // namespace kvcrumb::inline v0
