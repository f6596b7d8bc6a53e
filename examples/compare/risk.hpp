// SPDX-License-Identifier: Apache-2.0
//! @file risk: which parts of a recorded cache are hard to quantize, what schemes would lose, and what to do.
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "risk_predict.hpp"
#include "risk_statistics.hpp"

namespace kvcrumb_compare {

//! Thresholds of the advice; docs/risk.md has the reasons.
namespace risk_rule {
inline constexpr double tracing_gain = 1.1;     //!< key error without over with tracing, other tokens only
inline constexpr double centring_gain = 1.25;   //!< key error of per-token codes over that with means off
inline constexpr double channel_gain = 1.25;    //!< key error per token over per channel: worth having
inline constexpr double channel_needed = 2.0;   //!< likewise: needed, with channels above strong_channel
inline constexpr double more_bits = 1.25;       //!< 2-bit output error over the median layer
inline constexpr double one_sided = 1.5;        //!< key part over value part: the side that needs the bits
inline constexpr double stand_in_spread = 2.0;  //!< standard deviation of the logits of stand-ins
inline constexpr std::array<double, 5> error_limits{0.05, 0.1, 0.15, 0.25, 0.4};
inline constexpr double usual_limit = 0.15;  //!< the limit of the one scheme that is recommended
}  // namespace risk_rule

struct risk_settings {
  evaluation_settings caches;  //!< how caches are made and which queries are asked
  int probes = 16;             //!< queries of each head for a prediction
};

//! These settings (settings_for a length) without a window and with tracing in every layer, so that errors
//! are those of codes.
risk_settings risk_settings_of(evaluation_settings const& caches);

struct scheme_risk {
  std::string scheme;
  double bits_per_value = 0.0, tile_bits = 0.0;
  prediction predicted;                //!< with recorded queries where there are some, else with stand-ins
  std::optional<prediction> stand_in;  //!< the same without looking at the queries, where there are some
  std::optional<double> measured;      //!< mean output error of the recorded queries on the packed cache
};

//! unknown: a scheme that the rule compares cannot take the shape.
enum class advised : std::uint8_t { unknown, no, partly, yes };
std::string_view name_of(advised a) noexcept;

struct layer_advice {
  std::optional<double> tracing_gain;   //!< key error of kivi2 / ott2 over the tokens that ott2 encodes
  std::optional<double> centring_gain;  //!< key error of qserve4 / qserve4_centred
  std::optional<double> channel_gain;   //!< key error of qserve4 / kivi4 over the tokens that kivi4 encodes
  std::optional<double> rotation_gain;  //!< key error of qserve4 / saw_int4
  advised tracing = advised::unknown;   //!< partly: in some heads only
  advised centring = advised::unknown;  //!< of keys with codes per token
  advised per_channel = advised::unknown;  //!< partly: better, but not needed
  bool more_bits = false;                  //!< needs queries
  std::string more_bits_for;               //!< "keys", "values", "keys and values"; empty
};

struct layer_risk {
  int number = 0;
  layer_statistics statistics;
  std::vector<scheme_risk> schemes;  //!< in the order of decodable_schemes, without those left out
  layer_advice advice;
};

//! Rank correlation with the measured errors.
struct rank_check {
  std::vector<double> of_layers;  //!< over the schemes, one for each layer
  double of_means = 0.0;          //!< over the schemes, of errors averaged over the layers
  double across_layers = 0.0;     //!< over the layers, mean of the schemes; 0 for one layer
};

struct limit_advice {
  double limit = 0.0;
  std::string scheme;  //!< fewest tile bits among those predicted within the limit; empty: none
};

struct risk_report {
  std::string input;
  std::int64_t tokens = 0, head_dim = 0, kv_heads = 0, query_heads = 0;
  std::int64_t probes = 0;  //!< queries of each head
  bool recorded_queries = false;
  evaluation_settings caches;
  std::vector<layer_risk> layers;
  std::vector<scheme_risk> means;                 //!< over the layers
  std::optional<rank_check> predicted, stand_in;  //!< where errors were measured
  std::vector<limit_advice> limits;               //!< one for each of error_limits
  std::string recommended;                        //!< that of usual_limit; the least error if there is none
  std::vector<std::string> sentences;             //!< the advice in words
  std::vector<std::string> left_out;              //!< schemes that cannot take the shape, with the reason
  std::vector<std::string> notes;
};

//! The measured mean output error of one scheme on recorded.layers[i].
using measure_function = std::function<result<double>(std::string_view scheme, std::size_t i)>;

//! Statistics, predictions and advice. `measure`, which may be empty, is asked where there are queries; it
//! never enters the advice. `advance` is called with a label after each layer of a scheme. A scheme that
//! cannot take the shape is left out and named in the notes; gains that need it are not known.
//! Refused, with the layer and the reason: no layers, keys and values of unequal width, nothing but zeros,
//! fewer tokens than 16 or than a group, a group that is not compiled in, a measurement that fails.
result<risk_report> assess_risk(std::string_view input, recorded_layers const& recorded,
                                risk_settings const& settings, measure_function const& measure,
                                std::function<void(std::string_view)> const& advance);

//! The rules: everything of `advice` but the gains, which must be there; then limits, recommended, sentences.
void give_advice(risk_report& report);

//! Text with aligned tables; JSON; one self-contained HTML page. No control characters, whatever the input.
std::string risk_text(risk_report const& report);
std::string risk_json(risk_report const& report);
std::string risk_html(risk_report const& report, recorded_layers const& recorded);

}  // namespace kvcrumb_compare
