// SPDX-License-Identifier: Apache-2.0
#include "calibrate.hpp"

#include <charconv>

#include <kvcrumb/cache/crc32.hpp>

#include "byte_file.hpp"
#include "evaluate_scheme.hpp"
#include "kvquant_layer.hpp"
#include "text.hpp"

namespace kvcrumb_compare {

namespace {

using namespace kvcrumb;

constexpr std::string_view magic = "kvcrumb-calibration";

//! Calls f(integral_constant<int, bits>) for a KVQuant scheme; false for any other.
template <class F>
bool with_bits(std::string_view scheme, F f) {
  if (scheme == "kvquant2") return f(std::integral_constant<int, 2>{}), true;
  if (scheme == "kvquant3") return f(std::integral_constant<int, 3>{}), true;
  if (scheme == "kvquant4") return f(std::integral_constant<int, 4>{}), true;
  return false;
}

failure no_such_scheme(std::string_view scheme) {
  return {fmt::format("there is no calibration for '{}'; there are kvquant2 kvquant3 kvquant4",
                      printable(scheme, 40))};
}

//! Refuses layers whose keys and values differ in width.
result<bool> check_width(recorded_layers const& recorded) {
  for (recorded_layer const& layer : recorded.layers) {
    if (layer.value_dim != layer.head_dim) {
      return failure{fmt::format("layer {}: keys have {} channels and values {}; they must be equal",
                                 layer.number, layer.head_dim, layer.value_dim)};
    }
  }
  return true;
}

std::uint32_t checksum(std::string_view text) {
  return crc32(std::as_bytes(std::span<char const>(text.data(), text.size())));
}

bool read_number(std::string_view word, int base, std::int64_t limit, std::int64_t& out) {
  auto const [end, error] = std::from_chars(word.data(), word.data() + word.size(), out, base);
  return error == std::errc{} && end == word.data() + word.size() && out >= 0 && out <= limit;
}

//! The line above a layer's arrays.
struct header {
  std::string scheme;
  calibrated_layer layer;
  std::int64_t crc = 0;

  bool read(std::string_view line) {
    std::vector<std::string_view> words;
    for (auto word = detail::next_word(line); !word.empty(); word = detail::next_word(line))
      words.push_back(word);
    if (words.size() != 11 || words[0] != magic || words[1] != "1" || words[3] != "layer" ||
        words[5] != "kv_heads" || words[7] != "head_dim" || words[9] != "crc32" || words[10].size() != 8)
      return false;
    scheme = words[2];
    std::int64_t number = 0;
    bool const ok = read_number(words[4], 10, 1 << 20, number) &&
                    read_number(words[6], 10, 65536, layer.kv_heads) &&
                    read_number(words[8], 10, max_head_dim, layer.head_dim) &&
                    read_number(words[10], 16, 0xFFFFFFFFll, crc);
    layer.number = static_cast<int>(number);
    return ok;
  }
};

//! The parameters of a layer as KVQuant wants them, of the shape that the header promises.
template <int Bits>
status parameters_of(calibrated_layer const& layer, kvquant_calibration<Bits>& out) {
  if (status const s = kvquant_calibration<Bits>::from(layer.parameters, std::to_string(layer.number), out);
      s != status::ok)
    return s;
  return out.kv_heads == layer.kv_heads && out.head_dim == layer.head_dim ? status::ok : status::bad_shape;
}

template <int Bits>
result<scheme_result> run(calibration const& c, recorded_layers const& recorded,
                          std::span<exact_layer const> exact, evaluation_settings const& settings,
                          std::function<void()> const& advance) {
  std::vector<kvquant_calibration<Bits>> layers;  // in the order of the recording
  for (recorded_layer const& layer : recorded.layers) {
    auto const at = std::find_if(c.layers.begin(), c.layers.end(),
                                 [&](calibrated_layer const& l) { return l.number == layer.number; });
    if (at == c.layers.end())
      return failure{fmt::format("{}: the parameters have no layer {}", c.scheme, layer.number)};
    if (at->kv_heads != layer.kv_heads || at->head_dim != layer.head_dim) {
      return failure{fmt::format(
          "{}, layer {}: the parameters are for {} kv heads of {} channels, the input has {} of {}", c.scheme,
          layer.number, at->kv_heads, at->head_dim, layer.kv_heads, layer.head_dim)};
    }
    if (status const s = parameters_of(*at, layers.emplace_back()); s != status::ok)
      return failure{fmt::format("{}, layer {}: bad parameters: {}", c.scheme, layer.number, to_string(s))};
  }
  auto const make = [&](recorded_layer const& layer) {
    return schemes::kvquant_as_given(layers[static_cast<std::size_t>(&layer - recorded.layers.data())]);
  };
  return evaluate_scheme(c.scheme, make, recorded, exact, settings, advance);
}

}  // namespace

result<calibration> calibrate(std::string_view scheme, recorded_layers const& recorded) {
  if (auto const ok = check_width(recorded); !ok) return failure{ok.error};
  calibration c{std::string(scheme), {}};
  std::string error;
  bool const known = with_bits(scheme, [&](auto bits) {
    for (recorded_layer const& layer : recorded.layers) {
      kvquant_calibration<bits()> learned;
      if (status const s = calibrate_layer(layer, learned); s != status::ok) {
        error = fmt::format("{}, layer {}: {} ({} tokens, {} channels)", scheme, layer.number, to_string(s),
                            layer.tokens, layer.head_dim);
        return;
      }
      c.layers.push_back(
          {layer.number, layer.kv_heads, layer.head_dim, learned.parameters(std::to_string(layer.number))});
    }
  });
  if (!known) return no_such_scheme(scheme);
  if (!error.empty()) return failure{error};
  return c;
}

result<std::string> calibration_text(calibration const& c) {
  std::string text;
  for (calibrated_layer const& layer : c.layers) {
    std::string arrays;
    if (status const s = write_parameters(layer.parameters, arrays); s != status::ok)
      return failure{fmt::format("{}, layer {}: {}", c.scheme, layer.number, to_string(s))};
    text += fmt::format("{} 1 {} layer {} kv_heads {} head_dim {} crc32 {:08x}\n{}", magic, c.scheme,
                        layer.number, layer.kv_heads, layer.head_dim, checksum(arrays), arrays);
  }
  return text;
}

result<calibration> read_calibration(std::string_view text, std::string_view name) {
  calibration c;
  std::int64_t line = 1;
  auto const refused = [&](std::string const& why) {
    return failure{fmt::format("'{}', line {}: {}", printable(name, 400), line, why)};
  };
  if (!text.starts_with(magic)) return refused("not a calibration written by --calibrate");
  while (!text.empty()) {
    std::size_t const end = std::min(text.find('\n'), text.size() - 1) + 1;
    std::size_t const next = std::min(text.find(fmt::format("\n{}", magic)), text.size() - 1) + 1;
    header h;
    if (!h.read(text.substr(0, end))) return refused("a damaged header of a layer");
    if (c.layers.empty()) c.scheme = h.scheme;
    if (h.scheme != c.scheme)
      return refused(fmt::format("{} after {}", printable(h.scheme, 40), printable(c.scheme, 40)));
    if (!with_bits(h.scheme, [](auto) {})) return refused(no_such_scheme(h.scheme).text);
    for (calibrated_layer const& other : c.layers) {
      if (other.number == h.layer.number) return refused(fmt::format("layer {} twice", h.layer.number));
    }
    std::string_view const arrays = text.substr(end, next - end);
    if (checksum(arrays) != static_cast<std::uint32_t>(h.crc))
      return refused(fmt::format("layer {} is damaged, cut off or edited", h.layer.number));
    status s = read_parameters(arrays, h.layer.parameters);
    with_bits(h.scheme, [&](auto bits) {
      kvquant_calibration<bits()> unused;
      if (s == status::ok) s = parameters_of(h.layer, unused);
    });
    if (s != status::ok)
      return refused(fmt::format("layer {}: not the parameters of {} for {} kv heads of {} channels: {}",
                                 h.layer.number, h.scheme, h.layer.kv_heads, h.layer.head_dim, to_string(s)));
    c.layers.push_back(std::move(h.layer));
    line += std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(next), '\n');
    text.remove_prefix(next);
  }
  return c;
}

result<calibration> load_calibration(std::filesystem::path const& path) {
  auto file = byte_file::open(path);
  if (!file) return failure{fmt::format("'{}': {}", path.string(), file.error)};
  constexpr std::uint64_t most = std::uint64_t{1} << 30;
  if (file->size() > most) return failure{fmt::format("'{}' is too large for a calibration", path.string())};
  std::string text(static_cast<std::size_t>(file->size()), '\0');
  if (!file->read(0, std::as_writable_bytes(std::span<char>(text.data(), text.size()))))
    return failure{fmt::format("cannot read '{}'", path.string())};
  return read_calibration(text, path.string());
}

result<scheme_result> evaluate_calibrated(calibration const& c, recorded_layers const& recorded,
                                          std::span<exact_layer const> exact,
                                          evaluation_settings const& settings,
                                          std::function<void()> const& advance) {
  if (auto const ok = check_width(recorded); !ok) return failure{ok.error};
  result<scheme_result> r = no_such_scheme(c.scheme);
  with_bits(c.scheme, [&](auto bits) { r = run<bits()>(c, recorded, exact, settings, advance); });
  return r;
}

}  // namespace kvcrumb_compare
