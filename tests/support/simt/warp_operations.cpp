// SPDX-License-Identifier: Apache-2.0
//! @file Warp operations of the emulator: how lanes meet, and what the operations compute.
#include <bit>
#include <cstring>

#include "support/simt/runtime.hpp"

namespace simt {

using namespace detail;

namespace {

[[noreturn]] void diverged(operation const& op, site at, fibre const& other) {
  message m;
  m << "lanes diverged: " << op.name << " here, " << other.op->name << " at " << other.at << " in lane "
    << other.lane;
  if (other.op == &op && same(other.at, at)) {
    (m << " with the mask ").hex(other.mask);
  }
  fail(at, m);
}

bool together(fibre const& a, fibre const& b) {
  return a.op == b.op && a.mask == b.mask && (a.at.line == b.at.line && same(a.at, b.at));
}

//! What the lanes of __syncwarp did before is visible to all of them.
void order_memory(warp_state const&, unsigned warp, std::uint32_t mask) {
  sync_point& point = now.here->warp_point[warp];
  for (int half = 0; half < 2; ++half) {
    for (std::uint32_t rest = mask; rest != 0; rest &= rest - 1) {
      fibre* const f = now.lanes[warp * 32 + static_cast<unsigned>(std::countr_zero(rest))];
      as_tsan_thread(f->tsan, [&] { half == 0 ? release(point) : acquire(point); });
    }
  }
}

}  // namespace

void collective(operation const& op, std::uint32_t mask, void const* in, void* out, site at) {
  fibre& self = *now.running;
  warp_state& w = now.warps[self.warp];
  std::uint32_t const bit = 1u << self.lane;
  if ((mask & bit) == 0) {
    fail(at, message() << op.name << ": the calling lane is not in its mask");
  }
  if (op.aligned ? (mask != ~0u || w.existing != ~0u) : (mask & w.existing) == 0) {
    fail(at, message() << op.name << ": needs all 32 lanes of the warp");
  }
  mask &= w.existing;
  if ((mask & w.exited) != 0) {
    fail(at, message() << op.name << ": its mask names lane " << std::countr_zero(mask & w.exited)
                       << ", which has exited");
  }
  self.op = &op;
  self.mask = mask;
  self.in = in;
  self.out = out;
  self.at = at;
  self.state = state::warp_operation;
  fibre* const* const lanes = now.lanes.data() + self.warp * 32;
  // two lanes that wait for each other in different operations will do so forever
  for (std::uint32_t rest = w.arrived & mask; rest != 0; rest &= rest - 1) {
    fibre const& other = *lanes[std::countr_zero(rest)];
    if (!together(self, other) && (other.mask & bit) != 0) {
      diverged(op, at, other);
    }
    if (other.mask == ~0u) {
      break;  // every lane that arrived before has been compared with it
    }
  }
  w.arrived |= bit;
  bool all = (w.arrived & mask) == mask;
  void const* ins[32] = {};
  void* outs[32] = {};
  if (all) {
    for (std::uint32_t rest = mask; rest != 0; rest &= rest - 1) {
      int const i = std::countr_zero(rest);
      all = all && together(self, *lanes[i]);
      ins[i] = lanes[i]->in;
      outs[i] = lanes[i]->out;
    }
  }
  if (all) {
    op.run(mask, ins, outs);
    if (op.orders_memory && under_tsan()) {
      order_memory(w, self.warp, mask);
    }
    w.arrived &= ~mask;
    for (std::uint32_t rest = mask; rest != 0; rest &= rest - 1) {
      wake(lanes[std::countr_zero(rest)]);
    }
  }
  switch_away();
}

namespace {

void run_sync(std::uint32_t, void const* const*, void* const*) {}

std::uint32_t ballot(std::uint32_t mask, void const* const* in) {
  std::uint32_t r = 0;
  for (int i = 0; i < 32; ++i) {
    if ((mask >> i & 1u) != 0 && *static_cast<int const*>(in[i]) != 0) {
      r |= 1u << i;
    }
  }
  return r;
}
void give(std::uint32_t mask, void* const* out, std::uint32_t value) {
  for (int i = 0; i < 32; ++i) {
    if ((mask >> i & 1u) != 0) {
      *static_cast<std::uint32_t*>(out[i]) = value;
    }
  }
}
void run_ballot(std::uint32_t mask, void const* const* in, void* const* out) {
  give(mask, out, ballot(mask, in));
}
void run_any(std::uint32_t mask, void const* const* in, void* const* out) {
  give(mask, out, ballot(mask, in) != 0);
}
void run_all(std::uint32_t mask, void const* const* in, void* const* out) {
  give(mask, out, ballot(mask, in) == mask);
}

enum class direction { index, bits, up, down };
//! A source that is not in the mask gives ones in every bit: CUDA leaves the value undefined.
template <direction Direction>
void run_shuffle(std::uint32_t mask, void const* const* in, void* const* out) {
  for (int i = 0; i < 32; ++i) {
    if ((mask >> i & 1u) == 0) {
      continue;
    }
    auto const& x = *static_cast<shuffle_input const*>(in[i]);
    int const first = i & ~(x.width - 1), last = first + x.width - 1;
    int source = i;
    if constexpr (Direction == direction::index) {
      source = first + (x.source & (x.width - 1));
    } else if constexpr (Direction == direction::bits) {
      source = (i ^ x.source) <= last ? i ^ x.source : i;
    } else if constexpr (Direction == direction::up) {
      source = i - x.source >= first ? i - x.source : i;
    } else {
      source = i + x.source <= last ? i + x.source : i;
    }
    bool const there = source >= 0 && source < 32 && (mask >> source & 1u) != 0;
    *static_cast<std::uint64_t*>(out[i]) =
        there ? static_cast<shuffle_input const*>(in[source])->value : ~std::uint64_t{0};
  }
}

//! fp16 patterns as doubles. Below the infinities, the bits of a half moved into those of a float make a
//! number that is 2^112 too small; this form has no branches and vectorizes.
void halves_to_doubles(std::uint32_t const* halves, double* values, int n) {
  for (int i = 0; i < n; ++i) {
    std::uint32_t const h = halves[i];
    std::uint32_t const magnitude = (h & 0x7FFFu) << 13;
    float const finite = std::bit_cast<float>(magnitude) * 0x1p112f;
    std::uint32_t const bits =
        magnitude >= 0x0F800000u ? magnitude | 0x7F800000u : std::bit_cast<std::uint32_t>(finite);
    values[i] = static_cast<double>(std::bit_cast<float>(bits | (h & 0x8000u) << 16));
  }
}

//! Each result: 16 exact products added to the accumulator in double, in the order of k, rounded once to
//! float. A tensor core adds in groups and truncates: it differs by some units of the last place.
void run_mma(std::uint32_t, void const* const* in, void* const* out) {
  alignas(64) std::uint32_t halves[16 * 16 + 16 * 8];
  alignas(64) double values[16 * 16 + 16 * 8];
  std::uint32_t* const b_halves = halves + 256;
  for (int lane = 0; lane < 32; ++lane) {
    auto const& x = *static_cast<mma_input const*>(in[lane]);
    int const g = lane >> 2, t = lane & 3;
    for (int r = 0; r < 4; ++r) {
      std::uint32_t* const at = halves + (g + 8 * (r & 1)) * 16 + 2 * t + 8 * (r >> 1);
      at[0] = x.a[r] & 0xFFFFu;
      at[1] = x.a[r] >> 16;
    }
    for (int r = 0; r < 2; ++r) {
      std::uint32_t* const at = b_halves + (2 * t + 8 * r) * 8 + g;
      at[0] = x.b[r] & 0xFFFFu;
      at[8] = x.b[r] >> 16;
    }
  }
  halves_to_doubles(halves, values, 16 * 16 + 16 * 8);
  double const* const b = values + 256;
  for (int row = 0; row < 16; ++row) {
    double c[8];
    for (int n = 0; n < 8; ++n) {
      c[n] = static_cast<double>(
          static_cast<mma_input const*>(in[4 * (row & 7) + n / 2])->c[2 * (row >> 3) + (n & 1)]);
    }
    for (int k = 0; k < 16; ++k) {
      double const a = values[row * 16 + k];
      for (int n = 0; n < 8; ++n) {
        c[n] += a * b[k * 8 + n];
      }
    }
    for (int n = 0; n < 8; ++n) {
      static_cast<float*>(out[4 * (row & 7) + n / 2])[2 * (row >> 3) + (n & 1)] = static_cast<float>(c[n]);
    }
  }
}

void run_transpose(std::uint32_t, void const* const* in, void* const* out) {
  std::uint16_t m[8][8];
  for (int lane = 0; lane < 32; ++lane) {
    std::uint32_t const x = *static_cast<std::uint32_t const*>(in[lane]);
    m[lane >> 2][2 * (lane & 3)] = static_cast<std::uint16_t>(x);
    m[lane >> 2][2 * (lane & 3) + 1] = static_cast<std::uint16_t>(x >> 16);
  }
  for (int lane = 0; lane < 32; ++lane) {
    int const g = lane >> 2, t = lane & 3;
    *static_cast<std::uint32_t*>(out[lane]) =
        static_cast<std::uint32_t>(m[2 * t][g]) | static_cast<std::uint32_t>(m[2 * t + 1][g]) << 16;
  }
}

}  // namespace

operation const op_sync{"__syncwarp", run_sync, true, false};
operation const op_ballot{"__ballot_sync", run_ballot, false, false};
operation const op_any{"__any_sync", run_any, false, false};
operation const op_all{"__all_sync", run_all, false, false};
operation const op_shfl{"__shfl_sync", run_shuffle<direction::index>, false, false};
operation const op_shfl_xor{"__shfl_xor_sync", run_shuffle<direction::bits>, false, false};
operation const op_shfl_up{"__shfl_up_sync", run_shuffle<direction::up>, false, false};
operation const op_shfl_down{"__shfl_down_sync", run_shuffle<direction::down>, false, false};
operation const op_mma{"mma", run_mma, false, true};
operation const op_transpose{"transpose_8x8", run_transpose, false, true};

}  // namespace simt
