// SPDX-License-Identifier: Apache-2.0
//! @file picture: see picture.hpp.
#include "picture.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <string_view>

#include <fmt/format.h>
#include <zlib.h>

#include "text.hpp"

namespace kvcrumb_compare {
namespace {

// Both token plots share this frame, so that their token axes stand under each other.
constexpr double page_width = 960;
constexpr double left = 70;
constexpr double plot_width = 790;

struct rgb {
  int r, g, b;
};

// The colour table "viridis" (matplotlib, CC0) at nine points, linear between them.
rgb colour(int index) {
  static constexpr std::array<rgb, 9> points{{{68, 1, 84},
                                              {71, 44, 122},
                                              {59, 81, 139},
                                              {44, 113, 142},
                                              {33, 144, 141},
                                              {39, 173, 129},
                                              {92, 200, 99},
                                              {170, 220, 50},
                                              {253, 231, 37}}};
  double const at = index / 255.0 * 8;
  std::size_t const i = std::min<std::size_t>(static_cast<std::size_t>(at), 7);
  double const f = at - static_cast<double>(i);
  auto const mix = [&](int a, int b) { return static_cast<int>(std::lround(a + (b - a) * f)); };
  rgb const a = points[i];
  rgb const b = points[i + 1];
  return {mix(a.r, b.r), mix(a.g, b.g), mix(a.b, b.b)};
}

void append_big_endian(std::string& out, std::uint32_t value) {
  for (int shift = 24; shift >= 0; shift -= 8)
    out += static_cast<char>((value >> shift) & 255U);
}

void append_chunk(std::string& out, std::string_view type, std::string_view data) {
  append_big_endian(out, static_cast<std::uint32_t>(data.size()));
  std::string body(type);
  body += data;
  out += body;
  append_big_endian(out, static_cast<std::uint32_t>(crc32(0, reinterpret_cast<Bytef const*>(body.data()),
                                                          static_cast<uInt>(body.size()))));
}

// Three significant digits, no exponent for everyday sizes.
std::string number(double x) {
  double const size = std::fabs(x);
  if (size == 0) return "0";
  if (size >= 1e6 || size < 1e-3) {
    std::string text = fmt::format("{:.1e}", x);
    if (std::size_t const at = text.find(".0e"); at != std::string::npos) text.erase(at, 2);
    return text;
  }
  if (size >= 100) return fmt::format("{:.0f}", x);
  return fmt::format("{:.3g}", x);
}

// 1, 2 or 5 times a power of ten: about `wanted` steps over `span`.
double tick_step(double span, double wanted) {
  double const rough = span / wanted;
  double const power = std::pow(10.0, std::floor(std::log10(rough)));
  for (double const factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * 0.999) return factor * power;
  }
  return 10 * power;
}

// A value axis, linear or logarithmic, drawn upwards from `bottom` to `top` (SVG y).
struct value_axis {
  double low, high, bottom, top;
  bool logarithmic;

  double at(double value) const {
    double const f = logarithmic ? (std::log(value) - std::log(low)) / (std::log(high) - std::log(low))
                                 : (value - low) / (high - low);
    return bottom + (top - bottom) * f;
  }

  std::vector<double> ticks() const {
    std::vector<double> out;
    if (!logarithmic) {
      double const step = tick_step(high - low, 4);
      for (double k = std::ceil(low / step - 1e-9); k * step <= high * (1 + 1e-9); k += 1)
        out.push_back(k * step);
      return out;
    }
    bool const dense = high / low < 300;
    for (double power = std::pow(10.0, std::floor(std::log10(low))); power <= high; power *= 10) {
      for (double const factor : {1.0, 2.0, 5.0}) {
        double const value = factor * power;
        if ((dense || factor == 1.0) && value >= low * 0.999 && value <= high * 1.001) out.push_back(value);
      }
    }
    return out;
  }
};

std::string text(double x, double y, std::string_view anchor, std::string_view kind,
                 std::string_view content) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\" class=\"{}\">{}</text>\n", x, y,
                     anchor, kind, content);
}

std::string line(double x1, double y1, double x2, double y2, std::string_view kind) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"{}\"/>\n", x1, y1,
                     x2, y2, kind);
}

std::string open_svg(double width, double height, std::string_view label) {
  return fmt::format("<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">\n", width, height,
                     escape_html(label));
}

double token_x(double token, std::int64_t tokens) {
  return left + plot_width * (token + 0.5) / static_cast<double>(tokens);
}

std::string token_axis(std::int64_t tokens, double y) {
  std::string out = line(left, y, left + plot_width, y, "axis");
  double const step = std::max(1.0, tick_step(static_cast<double>(tokens), 8));
  for (double t = 0; t < static_cast<double>(tokens); t += step) {
    double const x = token_x(t, tokens);
    out += line(x, y, x, y + 5, "axis");
    out += text(x, y + 18, "middle", "tick", fmt::format("{:.0f}", t));
  }
  out += text(left + plot_width / 2, y + 36, "middle", "name", "token of the cache");
  return out;
}

// The traced tokens that belong into this picture, by position, each position once.
std::vector<traced_token> marks_of(key_picture const& picture) {
  std::vector<traced_token> marks;
  for (traced_token const& t : picture.traced) {
    bool const mine = t.layer == picture.layer && (!t.head || *t.head == picture.head);
    if (mine && t.position >= 0 && t.position < picture.tokens) marks.push_back(t);
  }
  std::sort(marks.begin(), marks.end(), [](auto const& a, auto const& b) { return a.position < b.position; });
  marks.erase(std::unique(marks.begin(), marks.end(),
                          [](auto const& a, auto const& b) { return a.position == b.position; }),
              marks.end());
  return marks;
}

std::string mark_title(traced_token const& mark) {
  return fmt::format("traced: token {}, key norm {:.2f} of the median", mark.position, mark.norm_ratio);
}

}  // namespace

std::string palette_png(std::vector<std::uint8_t> const& cells, std::uint32_t width, std::uint32_t height) {
  std::string header;
  append_big_endian(header, width);
  append_big_endian(header, height);
  header +=
      std::string_view("\x08\x03\x00\x00\x00", 5);  // 8 bits, palette, deflate, no filter, not interlaced
  std::string palette;
  for (int i = 0; i < 256; ++i) {
    rgb const c = colour(i);
    palette += static_cast<char>(c.r);
    palette += static_cast<char>(c.g);
    palette += static_cast<char>(c.b);
  }
  std::string raw;
  for (std::uint32_t y = 0; y < height; ++y) {
    raw += '\0';  // filter: none
    for (std::uint32_t x = 0; x < width; ++x) {
      raw += static_cast<char>(cells[static_cast<std::size_t>(y) * width + x]);
    }
  }
  uLongf size = compressBound(static_cast<uLong>(raw.size()));
  std::string packed(size, '\0');
  compress2(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<Bytef const*>(raw.data()),
            static_cast<uLong>(raw.size()), 9);
  packed.resize(size);
  std::string out = "\x89PNG\r\n\x1A\n";
  append_chunk(out, "IHDR", header);
  append_chunk(out, "PLTE", palette);
  append_chunk(out, "IDAT", packed);
  append_chunk(out, "IEND", "");
  return out;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::size_t const middle = values.size() / 2;
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(middle), values.end());
  double const upper = values[middle];
  if (values.size() % 2 == 1) return upper;
  return (upper + *std::max_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(middle))) /
         2;
}

std::vector<double> norms_of(key_picture const& picture) {
  if (!picture.norms.empty()) return picture.norms;
  std::vector<double> norms(static_cast<std::size_t>(picture.tokens));
  std::size_t const dim = static_cast<std::size_t>(picture.head_dim);
  for (std::size_t t = 0; t < norms.size(); ++t) {
    for (std::size_t d = 0; d < dim; ++d)
      norms[t] += std::fabs(static_cast<double>(picture.keys[t * dim + d]));
  }
  return norms;
}

heat_cells bin_keys(key_picture const& picture) {
  heat_cells cells;
  std::size_t const dim = static_cast<std::size_t>(picture.head_dim);
  std::size_t const columns = static_cast<std::size_t>(std::min<std::int64_t>(picture.tokens, 256));
  cells.columns = static_cast<std::uint32_t>(columns);
  cells.rows = static_cast<std::uint32_t>(dim);
  cells.values.resize(columns * dim);
  for (std::size_t c = 0; c <= columns; ++c) {
    cells.starts.push_back(static_cast<std::int64_t>(c) * picture.tokens /
                           static_cast<std::int64_t>(columns));
  }
  std::vector<traced_token> const marks = marks_of(picture);
  for (std::size_t c = 0; c < columns; ++c) {
    std::int64_t begin = cells.starts[c];
    std::int64_t end = cells.starts[c + 1];
    for (traced_token const& mark : marks) {
      if (mark.position >= begin && mark.position < end) {
        begin = mark.position;
        end = begin + 1;
        break;
      }
    }
    for (std::size_t d = 0; d < dim; ++d) {
      double sum = 0;
      for (std::int64_t t = begin; t < end; ++t) {
        sum += std::fabs(static_cast<double>(picture.keys[static_cast<std::size_t>(t) * dim + d]));
      }
      cells.values[d * columns + c] = static_cast<float>(sum / static_cast<double>(end - begin));
    }
  }
  return cells;
}

std::string heat_map_svg(key_picture const& picture) {
  heat_cells const cells = bin_keys(picture);
  float const largest = *std::max_element(cells.values.begin(), cells.values.end());
  std::vector<std::uint8_t> indices(cells.values.size());
  for (std::size_t i = 0; i < indices.size(); ++i) {  // square root: keeps the small keys apart
    double const share = largest > 0 ? static_cast<double>(cells.values[i] / largest) : 0;
    indices[i] = static_cast<std::uint8_t>(std::lround(255 * std::sqrt(share)));
  }
  std::vector<traced_token> const marks = marks_of(picture);
  double const top = marks.empty() ? 12 : 34;
  double const height = std::clamp(2.0 * static_cast<double>(picture.head_dim), 160.0, 320.0);
  double const bottom = top + height;
  std::string out =
      open_svg(page_width, bottom + 44,
               fmt::format("Size of the keys of layer {}, head {}: tokens to the right, channels down",
                           picture.layer, picture.head));
  out += fmt::format(
      "<image x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" preserveAspectRatio=\"none\" "
      "class=\"cells\" href=\"data:image/png;base64,{}\"/>\n",
      left, top, plot_width, height, base64(palette_png(indices, cells.columns, cells.rows)));
  double const dim = static_cast<double>(picture.head_dim);
  double const step = std::max(8.0, dim / 4);
  for (double d = 0; d < dim; d += step) {
    double const y = top + height * (d + 0.5) / dim;
    out += line(left - 5, y, left, y, "axis");
    out += text(left - 9, y + 4, "end", "tick", fmt::format("{:.0f}", d));
  }
  out += fmt::format(
      "<text transform=\"translate(18 {:.1f}) rotate(-90)\" text-anchor=\"middle\" class=\"name\">"
      "channel</text>\n",
      top + height / 2);
  out += token_axis(picture.tokens, bottom);

  double free_from = left - 20;
  for (traced_token const& mark : marks) {
    double const x = token_x(static_cast<double>(mark.position), picture.tokens);
    std::string const label = fmt::format("{}", mark.position);
    double const half = 4.0 * static_cast<double>(label.size());
    out += fmt::format("<g class=\"mark\"><title>{}</title><path d=\"M{:.1f} {:.1f}l-5 -9h10z\"/>",
                       mark_title(mark), x, top - 1);
    if (x - half >= free_from) {
      out +=
          fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>", x, top - 14, label);
      free_from = x + half + 6;
    }
    out += "</g>\n";
  }

  // Legend: the colour table as a one-column PNG, largest value on top.
  std::vector<std::uint8_t> ramp(256);
  for (std::size_t i = 0; i < ramp.size(); ++i)
    ramp[i] = static_cast<std::uint8_t>(255 - i);
  double const legend = left + plot_width + 24;
  out += fmt::format(
      "<image x=\"{:.1f}\" y=\"{:.1f}\" width=\"14\" height=\"{:.1f}\" preserveAspectRatio=\"none\" "
      "href=\"data:image/png;base64,{}\"/>\n",
      legend, top, height, base64(palette_png(ramp, 1, 256)));
  double const top_value = static_cast<double>(largest);
  double const legend_step = top_value > 0 ? tick_step(top_value, 5) : 1;
  for (double value = 0; value <= top_value; value += legend_step) {
    double const y = top_value > 0 ? bottom - height * std::sqrt(value / top_value) : bottom;
    out += line(legend + 14, y, legend + 18, y, "axis");
    out += text(legend + 22, y + 4, "start", "tick", number(value));
  }
  out += text(legend, bottom + 18, "start", "name", "|key|");
  return out + "</svg>\n";
}

std::string norm_svg(key_picture const& picture) {
  std::vector<double> const norms = norms_of(picture);
  double const middle = median(norms);
  double const low = *std::min_element(norms.begin(), norms.end());
  double const high = *std::max_element(norms.begin(), norms.end());
  double const top = 14;
  double const bottom = 164;
  bool const logarithmic = low > 0 && high / low > 20;
  value_axis axis{logarithmic ? low / 1.2 : 0.0, logarithmic ? high * 1.2 : high * 1.08, bottom, top,
                  logarithmic};
  if (!(axis.high > axis.low)) axis.high = axis.low + 1;

  std::string out =
      open_svg(page_width, bottom + 44, fmt::format("Key norm of every token of layer {}", picture.layer));
  for (double const tick : axis.ticks()) {
    double const y = axis.at(tick);
    out += line(left, y, left + plot_width, y, "grid");
    out += text(left - 9, y + 4, "end", "tick", number(tick));
  }
  out += token_axis(picture.tokens, bottom);
  std::string const name = picture.norm_name.empty() ? "key L1 norm" : picture.norm_name;
  out += fmt::format(
      "<text transform=\"translate(18 {:.1f}) rotate(-90)\" text-anchor=\"middle\" class=\"name\">{}"
      "</text>\n",
      (top + bottom) / 2, escape_html(name, 80));

  // One point per token; of long caches the smallest and the largest of each of 800 bins.
  std::size_t const bins = std::min<std::size_t>(norms.size(), 800);
  std::string path;
  for (std::size_t b = 0; b < bins; ++b) {
    std::size_t const begin = b * norms.size() / bins;
    std::size_t const end = (b + 1) * norms.size() / bins;
    auto const [smallest, biggest] = std::minmax_element(norms.begin() + static_cast<std::ptrdiff_t>(begin),
                                                         norms.begin() + static_cast<std::ptrdiff_t>(end));
    double const x = token_x((static_cast<double>(begin) + static_cast<double>(end) - 1) / 2, picture.tokens);
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", x, axis.at(*smallest));
    if (end - begin > 1) path += fmt::format("L{:.1f} {:.1f}", x, axis.at(*biggest));
  }
  out += fmt::format("<path d=\"{}\" class=\"curve\"/>\n", path);
  out += line(left, axis.at(middle), left + plot_width, axis.at(middle), "median");
  out += text(left + plot_width + 6, axis.at(middle) + 4, "start", "tick",
              fmt::format("median {}", number(middle)));
  std::size_t const strips = std::min<std::size_t>(norms.size(), 256);
  for (std::size_t b = 0; b < strips; ++b) {  // tooltips
    std::size_t const begin = b * norms.size() / strips;
    std::size_t const end = (b + 1) * norms.size() / strips;
    double sum = 0;
    for (std::size_t t = begin; t < end; ++t)
      sum += norms[t];
    sum /= static_cast<double>(end - begin);
    double const width = plot_width / static_cast<double>(strips);
    out += fmt::format("<rect x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" "
                       "class=\"hover\"><title>{}: {}{}</title></rect>\n",
                       left + width * static_cast<double>(b), top, width, bottom - top,
                       end - begin == 1 ? fmt::format("token {}", begin)
                                        : fmt::format("tokens {} to {}, mean", begin, end - 1),
                       number(sum), middle > 0 ? fmt::format(", {:.2f} of the median", sum / middle) : "");
  }
  std::string labels;
  double free_from = left - 20;
  for (traced_token const& mark : marks_of(picture)) {
    double const x = token_x(static_cast<double>(mark.position), picture.tokens);
    double const y = axis.at(norms[static_cast<std::size_t>(mark.position)]);
    out += fmt::format(
        "<g class=\"mark\"><title>{}</title><circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4.5\"/></g>\n",
        mark_title(mark), x, y);
    std::string const label = fmt::format("{} ({:.2f})", mark.position, mark.norm_ratio);
    double const width = 7.5 * static_cast<double>(label.size());
    double const start = x + 8 + width > left + plot_width ? x - 8 - width : x + 8;
    if (start < free_from) continue;  // no room; the circle has a tooltip
    labels += fmt::format("<g class=\"mark\"><text x=\"{:.1f}\" y=\"{:.1f}\">{}</text></g>\n", start,
                          std::min(y + 14, bottom - 4), label);
    free_from = start + width + 8;
  }
  out += labels;
  return out + "</svg>\n";
}

std::string scatter_svg(std::vector<scatter_point> const& points, std::string const& error_name) {
  std::vector<scatter_point> drawn;
  std::vector<double> bits;
  std::vector<std::optional<double>> errors;
  for (scatter_point const& p : points) {
    if (p.error && std::isfinite(*p.error) && *p.error >= 0 && std::isfinite(p.bits) && p.bits > 0) {
      drawn.push_back(p);
      bits.push_back(p.bits);
      errors.push_back(p.error);
    }
  }
  if (drawn.empty()) return {};
  double const highest = **std::max_element(errors.begin(), errors.end());
  double smallest = highest;
  for (auto const& e : errors) {
    if (*e > 0) smallest = std::min(smallest, *e);
  }
  // A logarithmic axis of at most five decades. What lies below it, exact results among it, is drawn on its
  // foot.
  double const foot = highest > 0 ? std::max(smallest / 1.6, highest * 1e-5) : 0.1;
  double const top = 16;
  double const bottom = 370;
  double const width = page_width - left - 40;
  value_axis const axis{foot, highest > 0 ? highest * 1.6 : 1.0, bottom, top, true};
  double const fewest = *std::min_element(bits.begin(), bits.end()) / 1.15;
  double const most = *std::max_element(bits.begin(), bits.end()) * 1.15;
  auto const x_at = [&](double b) { return left + width * std::log(b / fewest) / std::log(most / fewest); };
  auto const y_at = [&](double e) { return axis.at(std::max(e, foot)); };

  std::string out = open_svg(page_width, bottom + 48, "Error against bits per value");
  for (double const tick : axis.ticks()) {
    out += line(left, axis.at(tick), left + width, axis.at(tick), "grid");
    out += text(left - 9, axis.at(tick) + 4, "end", "tick", number(tick));
  }
  for (double const tick : {1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 16.0, 24.0, 32.0}) {
    if (tick < fewest || tick > most) continue;
    out += line(x_at(tick), top, x_at(tick), bottom, "grid");
    out += text(x_at(tick), bottom + 18, "middle", "tick", fmt::format("{}", tick));
  }
  out += line(left, bottom, left + width, bottom, "axis");
  out += line(left, top, left, bottom, "axis");
  out +=
      text(left + width / 2, bottom + 38, "middle", "name", "bits per value, everything counted (log scale)");
  out += fmt::format(
      "<text transform=\"translate(18 {:.1f}) rotate(-90)\" text-anchor=\"middle\" class=\"name\">{} "
      "(log scale)</text>\n",
      (top + bottom) / 2, escape_html(error_name, 80));
  out += text(left + 8, bottom - 9, "start", "hint", "\xE2\x86\x99 better");

  std::vector<std::size_t> const front = pareto_front(bits, errors);
  std::string path;
  for (std::size_t const i : front) {
    path += fmt::format("{}{:.1f} {:.1f}", path.empty() ? "M" : "L", x_at(bits[i]), y_at(*errors[i]));
  }
  out += fmt::format("<path d=\"{}\" class=\"front\"/>\n", path);

  struct box {
    double x0, y0, x1, y1;
  };
  std::vector<box> taken{{left, bottom - 24, left + 64, bottom}};
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    double const x = x_at(bits[i]);
    double const y = y_at(*errors[i]);
    taken.push_back({x - 7, y - 7, x + 7, y + 7});
  }
  for (std::size_t i = 0; i < drawn.size(); ++i) {
    double const x = x_at(bits[i]);
    double const y = y_at(*errors[i]);
    bool const below = *errors[i] < foot;
    bool const on_front = std::find(front.begin(), front.end(), i) != front.end();
    std::string const label =
        drawn[i].label + (below ? (*errors[i] == 0 ? ": 0" : ": " + number(*errors[i])) : "");
    double const w = 8.0 * static_cast<double>(label.size());
    box best{x + 10, y - 8, x + 10 + w, y + 6};
    for (box const candidate :
         {best, box{x - 10 - w, y - 8, x - 10, y + 6}, box{x - w / 2, y - 24, x + w / 2, y - 10},
          box{x - w / 2, y + 10, x + w / 2, y + 24}, box{x + 8, y - 22, x + 8 + w, y - 8},
          box{x + 8, y + 8, x + 8 + w, y + 22}, box{x - 8 - w, y + 8, x - 8, y + 22},
          box{x - 8 - w, y - 22, x - 8, y - 8}}) {
      bool const inside =
          candidate.x0 >= left && candidate.x1 <= page_width && candidate.y0 >= 0 && candidate.y1 <= bottom;
      bool const free = std::none_of(taken.begin(), taken.end(), [&](box const& t) {
        return candidate.x0 < t.x1 && t.x0 < candidate.x1 && candidate.y0 < t.y1 && t.y0 < candidate.y1;
      });
      if (inside && free) {
        best = candidate;
        break;
      }
    }
    taken.push_back(best);
    out += fmt::format("<g class=\"{}\"><title>{}: {:.3f} bits per value, {} {}</title>",
                       on_front ? "point best" : "point", escape_html(drawn[i].label), bits[i],
                       escape_html(error_name, 80), number(*errors[i]));
    out += below ? fmt::format("<path d=\"M{:.1f} {:.1f}l-6 -11h12z\"/>", x, y)
                 : fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5.5\"/>", x, y);
    bool const to_left = best.x1 < x;
    bool const to_right = best.x0 > x;
    out += text(to_left    ? best.x1
                : to_right ? best.x0
                           : x,
                best.y1 - 2,
                to_left    ? "end"
                : to_right ? "start"
                           : "middle",
                "label", escape_html(label, 60));
    out += "</g>\n";
  }
  return out + "</svg>\n";
}

}  // namespace kvcrumb_compare
