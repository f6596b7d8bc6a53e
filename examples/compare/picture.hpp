// SPDX-License-Identifier: Apache-2.0
//! @file picture: the drawings of the HTML report: heat map, norm curve, error against bits. SVG text, no
//! script.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "report.hpp"

namespace kvcrumb_compare {

//! An indexed PNG (8 bits, the colour table of the heat map) of width x height palette entries, row by row.
std::string palette_png(std::vector<std::uint8_t> const& cells, std::uint32_t width, std::uint32_t height);

//! What a heat map shows of a picture: |key| cells and how they were made.
struct heat_cells {
  std::uint32_t columns = 0;         //!< <= 256 bins of tokens
  std::uint32_t rows = 0;            //!< channels
  std::vector<float> values;         //!< [rows][columns] >= 0
  std::vector<std::int64_t> starts;  //!< [columns + 1]: bin c holds tokens starts[c] ... starts[c + 1] - 1
};

//! Mean |key| per bin; a bin with a traced token shows that token alone, so that it does not drown.
heat_cells bin_keys(key_picture const& picture);

//! SVG of the heat map (tokens to the right, channels down) with the traced tokens as labelled ticks.
std::string heat_map_svg(key_picture const& picture);

//! SVG of the key norm of every token, median line, traced tokens marked; same token axis as the heat map.
std::string norm_svg(key_picture const& picture);

//! SVG: x bits per value (log), y the error; labelled points and the Pareto front. Points without error are
//! left out.
struct scatter_point {
  std::string label;
  double bits = 0;
  std::optional<double> error;
};
std::string scatter_svg(std::vector<scatter_point> const& points, std::string const& error_name);

//! The norms of a picture: as given, or the L1 norm of each key.
std::vector<double> norms_of(key_picture const& picture);

//! Median; the mean of the middle two for an even count; 0 of nothing.
double median(std::vector<double> values);

}  // namespace kvcrumb_compare
