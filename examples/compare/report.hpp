// SPDX-License-Identifier: Apache-2.0
//! @file report: what kvcrumb-compare found, as a text table, as JSON and as one self-contained HTML page.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace kvcrumb_compare {

//! One token that a scheme keeps apart.
struct traced_token {
  int layer = 0;
  std::optional<int> head;    //!< kv head; nothing: chosen across all heads of the layer
  std::int64_t position = 0;  //!< token of the cache
  double norm_ratio = 0;  //!< its key norm over the median key norm (of that head, or summed over the heads)
};

//! One row of the table: what one scheme does to this file. Nothing stands for "this file cannot tell", never
//! 0.
struct scheme_result {
  std::string scheme;
  double bits_per_value = 0;                 //!< measured, everything counted, keys and values together
  double compression = 0;                    //!< bytes in fp16 over measured bytes
  std::optional<double> output_rel_l2_mean;  //!< needs queries
  std::optional<double> output_rel_l2_p99;   //!< needs queries
  std::optional<double> attention_kl_mean;   //!< nats; needs queries
  std::optional<double> top1_agreement;      //!< in [0, 1]; needs queries
  std::optional<double> k_rel_l2;
  std::optional<double> v_rel_l2;
  std::vector<traced_token> traced_tokens;
  std::optional<double> encode_ms;
  std::optional<double> attend_ms;  //!< needs queries
};

//! The keys of one head of one layer, to be drawn.
struct key_picture {
  int layer = 0;
  int head = 0;
  std::int64_t tokens = 0;
  std::int64_t head_dim = 0;
  std::vector<float> keys;    //!< [tokens][head_dim], finite
  std::vector<double> norms;  //!< [tokens]; empty: the L1 norm of each row of `keys`
  std::string norm_name;  //!< axis title, such as "key L1 norm, summed over 12 heads"; empty: "key L1 norm"
  std::vector<traced_token> traced;  //!< tokens to mark (of this layer; those of other heads are left out)
};

//! Everything a report says.
struct report_input {
  std::string input;  //!< path as given, or the name of the embedded sample
  std::int64_t tokens = 0;
  std::int64_t head_dim = 0;
  std::int64_t kv_heads = 0;
  std::int64_t query_heads = 0;  //!< 0: the file has no queries
  std::int64_t queries = 0;      //!< per layer and head; 0: the file has no queries
  std::vector<int> layers;
  std::int64_t group = 0;   //!< tokens per key group
  std::int64_t window = 0;  //!< newest tokens in full precision
  std::int64_t tile_tokens = 0;
  std::string version;                                      //!< of kvcrumb, "0.1.0"
  std::string command;                                      //!< the command line
  std::vector<std::pair<std::string, std::string>> source;  //!< metadata of the file, in the order to print
  std::vector<std::pair<std::string, std::string>>
      schemes;                     //!< name, one sentence: what it does, which paper
  std::vector<std::string> notes;  //!< remarks to print, such as "no queries: attention errors are not known"
  std::vector<scheme_result> results;
  std::vector<key_picture> pictures;
};

//! The table and, under it, the traced tokens and notes. Columns are aligned, units in the header, unknown is
//! "-". Ends with a newline. No control characters, whatever the input holds.
std::string text_report(report_input const& input);

//! The contract of the JSON output: top level `input tokens head_dim results`; each result `scheme
//! bits_per_value compression output_rel_l2_mean output_rel_l2_p99 attention_kl_mean top1_agreement k_rel_l2
//! v_rel_l2 traced_tokens encode_ms attend_ms`. Unknown (and not finite) is null; traced_tokens holds objects
//! {layer, head, position, norm_ratio}, head null if chosen across heads. Further top-level keys: version
//! command layers kv_heads query_heads queries group window tile_tokens source notes. Ends with a newline.
std::string json_report(report_input const& input);

//! One HTML page with inline style and pictures, light and dark, no script, nothing to load from anywhere:
//! table, error against bits with the Pareto front, per picture a heat map |key| (tokens x channels) and the
//! key norms with the traced tokens marked, and what was run. Every string is escaped.
std::string html_report(report_input const& input);

//! Indices of the results that no other result beats in both bits and error (smaller is better; equal points
//! all stay), ordered by bits. `errors` has one entry per `bits`; nothing: not on the front.
std::vector<std::size_t> pareto_front(std::vector<double> const& bits,
                                      std::vector<std::optional<double>> const& errors);

}  // namespace kvcrumb_compare
