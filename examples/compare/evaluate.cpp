// SPDX-License-Identifier: Apache-2.0
#include "evaluate.hpp"

#include <algorithm>
#include <array>

#include "evaluate_scheme.hpp"

namespace kvcrumb_compare {

namespace {

struct registered {
  scheme_entry entry;
  evaluate_function* run;
};

constexpr registered registry[] = {
    {{"fp16", "full precision, the baseline"}, evaluate_rows},
    {{"kivi2", "KIVI (arXiv 2402.02750), 2 bits: keys per channel, values per token"}, evaluate_kivi2},
    {{"kivi4", "KIVI, 4 bits"}, evaluate_kivi4},
    {{"ott2",
      "outlier-token tracing (arXiv 2505.10938): KIVI's 2 bits, the smallest keys kept exact and masked"},
     evaluate_ott2},
    {{"nqkv4", "NQKV (arXiv 2505.16210): NF4 blocks of 256 channels of a token"}, evaluate_rows},
    {{"qserve4", "QServe KV4 (arXiv 2405.04532): 4 bits with scale and zero point per token and head"},
     evaluate_rows},
    {{"q8_0", "ggml q8_0 blocks of 32"}, evaluate_rows},
    {{"q4_0", "ggml q4_0 blocks of 32"}, evaluate_rows},
    {{"crumb2",
      "ours: 2-bit keys with 4 bits for the widest quarter of the channels, rotated 2-bit Lloyd-Max values, "
      "outlier-token tracing"},
     evaluate_crumb2},
    {{"kvquant3", "KVQuant (arXiv 2401.18079), 3 bits: non-uniform levels, sparse outliers; calibrated on "
                  "the input or by "
                  "--parameters"},
     evaluate_kvquant},
    {{"skvq2",
      "SKVQ (arXiv 2405.06219): permuted channels, clipped 2 bits, e4m3 parameters; calibrated on the input"},
     evaluate_skvq},
    {{"skvq_k2v15", "SKVQ with values of three levels, five to a byte"}, evaluate_skvq},
    {{"qjl", "QJL (arXiv 2406.03482): signs of a projection and a norm for keys, 2-bit values"},
     evaluate_qjl},
    {{"qaq", "QAQ (arXiv 2403.04643): a width for each token from the attention of the recorded queries"},
     evaluate_qaq},
    {{"wkvquant4", "WKVQuant (arXiv 2402.12065), 4 bits: static channel scales; calibrated on the input"},
     evaluate_wkvquant},
    {{"think", "ThinK (arXiv 2407.21018): 40 % of the key channels dropped, the rest fp16"}, evaluate_think},
    {{"think_kivi2", "ThinK on KIVI's 2 bits"}, evaluate_think},
    {{"decoquant4", "DecoQuant (arXiv 2405.12591): blocks as a 4-bit factor times a small exact one"},
     evaluate_decoquant},
    {{"turboquant2", "TurboQuant (arXiv 2504.19874), 2 bits: rotation, Lloyd-Max levels, corrected norm"},
     evaluate_turboquant},
    {{"turboquant3", "TurboQuant, 3 bits"}, evaluate_turboquant},
    {{"turboquant4", "TurboQuant, 4 bits"}, evaluate_turboquant},
    {{"turboquant_prod", "TurboQuant for inner products: a sketch of the residual takes the last bit"},
     evaluate_turboquant},
    {{"oscar2", "OScaR (arXiv 2605.19660): rotation, keys divided by their token norm, 2 bits"},
     evaluate_oscar},
    {{"kvarn", "KVarN (arXiv 2606.03458): rotation, both variances made even; 4-bit keys, 2-bit values"},
     evaluate_kvarn},
    {{"kvarn2", "KVarN with 2-bit keys"}, evaluate_kvarn},
    {{"kitty", "Kitty (arXiv 2511.18643): 2-bit keys, an eighth of the channels 4 bits"}, evaluate_kitty},
    {{"kitty_pro", "Kitty with a quarter of the channels boosted"}, evaluate_kitty},
    {{"asymkv", "AsymKV (arXiv 2410.13212): 2-bit keys in the first half of the layers, 1 bit elsewhere"},
     evaluate_layers},
    {{"kvtuner",
      "after KVTuner (arXiv 2502.04420): 2 or 4 bits by layer and side, 3 on average; chosen on the input"},
     evaluate_layers},
    {{"saw_int4", "SAW-INT4 (arXiv 2604.19157): 4 bits per token and head, keys rotated in blocks"},
     evaluate_fp4},
    {{"nvfp4", "NVFP4: E2M1 codes, one e4m3 scale for 16 channels, one scale per tensor from the input"},
     evaluate_fp4},
    // from here on: not among all
    {{"kvquant2", "KVQuant, 2 bits with Q-Norm"}, evaluate_kvquant},
    {{"kvquant4", "KVQuant, 4 bits"}, evaluate_kvquant},
};
constexpr std::size_t unlisted = 2;

constexpr auto entries = [] {
  std::array<scheme_entry, std::size(registry)> all{};
  for (std::size_t i = 0; i < all.size(); ++i)
    all[i] = registry[i].entry;
  return all;
}();

std::string_view canonical(std::string_view name) { return name == "sinkq" ? "ott2" : name; }

}  // namespace

std::span<scheme_entry const> known_schemes() {
  return std::span<scheme_entry const>(entries).first(entries.size() - unlisted);
}

scheme_entry const* find_scheme(std::string_view name) {
  auto const at =
      std::find_if(entries.begin(), entries.end(), [&](auto const& e) { return e.name == canonical(name); });
  return at == entries.end() ? nullptr : &*at;
}

result<scheme_result> evaluate(std::string_view scheme, recorded_layers const& recorded,
                               std::span<exact_layer const> exact, evaluation_settings const& settings,
                               std::function<void()> const& advance) {
  scheme_entry const* entry = find_scheme(scheme);
  if (entry == nullptr) return failure{fmt::format("no scheme is named '{}'", scheme)};
  for (recorded_layer const& layer : recorded.layers) {
    if (layer.value_dim != layer.head_dim) {
      return failure{fmt::format("layer {}: keys have {} channels and values {}; they must be equal",
                                 layer.number, layer.head_dim, layer.value_dim)};
    }
  }
  auto r = registry[entry - entries.data()].run(entry->name, recorded, exact, settings, advance);
  if (r) r->scheme = scheme;
  return r;
}

}  // namespace kvcrumb_compare
