// SPDX-License-Identifier: Apache-2.0
//! @file Decode attention by ggml, to measure against; including this needs no header of ggml.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace kvcrumb_bench {

//! Storage type of keys and values.
enum class ggml_kv { f16, bf16, q8_0, q4_0 };

//! Where the rows of a layer are.
enum class ggml_order {
  token_major,  //!< [token][kv head][channel], the view that a llama.cpp cache gives
  contiguous    //!< [kv head][token][channel]: what a kernel could wish for
};

[[nodiscard]] char const* to_string(ggml_kv type);
[[nodiscard]] char const* to_string(ggml_order order);

//! Version and commit of ggml, the instruction sets that it was compiled for, and whose threads it uses.
[[nodiscard]] std::string ggml_description();

//! One layer of decode attention through ggml_flash_attn_ext: one query token, no mask, softmax scale
//! 1 / sqrt(128).
//!
//! Holds as many copies of the cache as it takes to fill a pool, so that a caller who takes turns on them
//! reads packed bytes from memory, as a model of many layers does. Graphs and plans are made by create();
//! run() only computes. Rows are zero until set_inputs().
//!
//! Threads: a pool of its own, made once. Workers of ggml's pool spin for about 0.1 s after a graph (polling
//! level 50, ggml's default) before they sleep; on a machine with few processors they would disturb what runs
//! next. Therefore the pool rests unless wake() was called: a run() alone wakes the workers, which takes ggml
//! tens of microseconds, and puts them to sleep afterwards. For ggml's best time call wake(), run() as often
//! as you like, rest(). None of this works where ggml was built with OpenMP, whose threads nobody can pause
//! (ggml.cmake switches it off).
class ggml_attention {
 public:
  static constexpr int head_dim = 128;

  //! Null unless kv_heads > 0 divides query_heads, tokens > 0, 0 < threads <= 512 (ggml's limit) and the
  //! memory could be had. `huge_pages` asks Linux for 2 MiB pages, which neither ggml nor llama.cpp does.
  [[nodiscard]] static std::unique_ptr<ggml_attention> create(ggml_kv type, ggml_order order, int query_heads,
                                                              int kv_heads, std::int64_t tokens, int threads,
                                                              std::int64_t min_pool_bytes,
                                                              bool huge_pages = false);
  ~ggml_attention();
  ggml_attention(ggml_attention const&) = delete;
  ggml_attention& operator=(ggml_attention const&) = delete;

  //! Stores the rows in every copy, rounded by ggml's reference quantizers. Requires keys and values
  //! [kv head][token][128] and queries [query head][128], also where the order is token_major; otherwise
  //! nothing changes and the result is false.
  [[nodiscard]] bool set_inputs(std::span<float const> keys, std::span<float const> values,
                                std::span<float const> queries);

  //! The same for the keys and values of copy `copy % copies()` alone.
  [[nodiscard]] bool set_rows(int copy, std::span<float const> keys, std::span<float const> values);

  void wake();         //!< when it returns, all workers spin and wait for run()
  void rest();         //!< sends the workers to sleep, at once
  void run(int copy);  //!< one decode step on copy `copy % copies()`; ends the program if ggml refuses

  [[nodiscard]] int copies() const;
  [[nodiscard]] std::span<std::byte const> pool() const;  //!< all copies
  [[nodiscard]] std::int64_t bytes() const;    //!< of the keys and values of one copy, which a step must read
  [[nodiscard]] float const* output() const;   //!< [query head][128] of the last run
  [[nodiscard]] float const* queries() const;  //!< [query head][128] as set

  //! What copy `copy % copies()` holds, decoded by ggml. Requires room for [kv head][token][128] each.
  void stored_rows(int copy, std::span<float> keys, std::span<float> values) const;
  //! The queries as ggml's dot product with this type sees them: rounded to f16, bf16 or q8_0. Requires room
  //! for [query head][128].
  void rounded_queries(std::span<float> queries) const;

 private:
  ggml_attention();
  struct state;
  std::unique_ptr<state> s_;
};

}  // namespace kvcrumb_bench
