// SPDX-License-Identifier: Apache-2.0
//! @file load_tensor_file: see tensor_file.hpp.
#include "tensor_file.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <exception>
#include <functional>
#include <limits>
#include <memory>
#include <new>
#include <numeric>
#include <optional>
#include <set>
#include <span>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "byte_file.hpp"
#include "tensor_archive.hpp"
#include "text.hpp"

namespace kvcrumb_compare {
namespace {

enum class role : std::uint8_t { q, k, v, position };

constexpr std::array<char const*, 4> role_names{"q", "k", "v", "position"};
constexpr std::uint64_t max_extent = (std::uint64_t{1} << 31) - 1;

struct tensor_name {
  role what = role::q;
  std::optional<int> layer;
};

std::optional<role> role_of(std::string_view part) {
  static constexpr std::array<std::pair<std::string_view, role>, 12> words{{
      {"q", role::q},
      {"query", role::q},
      {"queries", role::q},
      {"k", role::k},
      {"key", role::k},
      {"keys", role::k},
      {"v", role::v},
      {"value", role::v},
      {"values", role::v},
      {"position", role::position},
      {"positions", role::position},
      {"key_positions", role::position},
  }};
  auto const found =
      std::find_if(words.begin(), words.end(), [&](auto const& row) { return row.first == part; });
  return found == words.end() ? std::nullopt : std::optional(found->second);
}

std::optional<int> whole_number(std::string_view text) {
  int value = 0;
  auto const [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc{} || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

std::optional<int> layer_of(std::string_view part) {
  for (std::string_view const prefix : {"layer_", "layer", ""}) {
    if (part.starts_with(prefix)) {
      auto const number = whole_number(part.substr(prefix.size()));
      if (number) return number;
    }
  }
  return std::nullopt;
}

bool is_container(std::string_view part) {
  static constexpr std::array<std::string_view, 11> words{
      "model",     "transformer", "layers",   "layer",          "h", "self_attn", "attn",
      "attention", "cache",       "kv_cache", "past_key_values"};
  return std::find(words.begin(), words.end(), part) != words.end();
}

// What a name stands for; nothing if it is none of the documented forms.
std::optional<tensor_name> parse_name(std::string_view name) {
  std::optional<role> what;
  std::optional<int> layer;
  while (true) {
    std::size_t const end = name.find_first_of("./");
    std::string_view const part = name.substr(0, end);
    if (auto const found = role_of(part); found) {
      if (what) return std::nullopt;
      what = found;
    } else if (auto const number = layer_of(part); number) {
      if (layer) return std::nullopt;
      layer = number;
    } else if (!is_container(part)) {
      return std::nullopt;
    }
    if (end == std::string_view::npos) break;
    name.remove_prefix(end + 1);
  }
  if (!what) return std::nullopt;
  return tensor_name{*what, layer};
}

// "2,4,7-9" -> 2 4 7 8 9; nothing if the text is anything else or has more than `limit` numbers.
std::optional<std::vector<std::int64_t>> parse_numbers(std::string_view text, std::size_t limit) {
  std::vector<std::int64_t> numbers;
  while (true) {
    std::size_t const end = text.find(',');
    std::string_view item = text.substr(0, end);
    while (item.starts_with(' '))
      item.remove_prefix(1);
    while (item.ends_with(' '))
      item.remove_suffix(1);
    std::size_t const dash = item.find('-');
    auto const first = whole_number(item.substr(0, dash));
    auto const last = dash == std::string_view::npos ? first : whole_number(item.substr(dash + 1));
    if (!first || !last || *last < *first) return std::nullopt;
    if (static_cast<std::size_t>(*last - *first) >= limit - numbers.size()) return std::nullopt;
    for (std::int64_t n = *first; n <= *last; ++n)
      numbers.push_back(n);
    if (end == std::string_view::npos) return numbers;
    text.remove_prefix(end + 1);
  }
}

// One layer's part of an array of the file.
struct array_part {
  std::size_t entry = 0;
  std::uint64_t first = 0;           // element
  std::vector<std::uint64_t> shape;  // [head][token][dim]; of positions [token] or [head][token]
  std::uint64_t elements() const {   // no overflow: it divides the checked product of the whole array
    return std::accumulate(shape.begin(), shape.end(), std::uint64_t{1}, std::multiplies<>());
  }
};

struct planned_layer {
  int number = 0;
  std::array<std::optional<array_part>, 4> parts;  // by role

  std::optional<array_part>& operator[](role r) { return parts[static_cast<std::size_t>(r)]; }
  std::optional<array_part> const& operator[](role r) const { return parts[static_cast<std::size_t>(r)]; }
};

stored_type stored_type_of(element_type type) {
  switch (type) {
    case element_type::bf16: return stored_type::bf16;
    case element_type::f32: return stored_type::f32;
    case element_type::f64: return stored_type::f64;
    default: return stored_type::f16;
  }
}

bool is_float(element_type type) {
  return type == element_type::f16 || type == element_type::bf16 || type == element_type::f32 ||
         type == element_type::f64;
}

bool is_integer(element_type type) { return type == element_type::i32 || type == element_type::i64; }

bool is_finite(float x) { return (std::bit_cast<std::uint32_t>(x) & 0x7F800000U) != 0x7F800000U; }

float convert(element_type type, std::span<std::byte const> bytes, std::size_t i) {
  switch (type) {
    case element_type::f16: return half_to_float(static_cast<std::uint16_t>(little_endian<2>(bytes, 2 * i)));
    case element_type::bf16:
      return bfloat16_to_float(static_cast<std::uint16_t>(little_endian<2>(bytes, 2 * i)));
    case element_type::f32:
      return std::bit_cast<float>(static_cast<std::uint32_t>(little_endian<4>(bytes, 4 * i)));
    case element_type::f64: {
      double const wide = std::bit_cast<double>(little_endian<8>(bytes, 8 * i));
      // Beyond this bound nearest-even rounding gives infinity; converting would be undefined only in theory.
      constexpr double bound = 3.4028235677973366e38;
      if (wide >= bound) return std::numeric_limits<float>::infinity();
      if (wide <= -bound) return -std::numeric_limits<float>::infinity();
      return static_cast<float>(wide);
    }
    default: return 0.0F;
  }
}

class loader {
 public:
  loader(tensor_archive& archive, load_options const& options) : archive_(archive), options_(options) {}

  result<recorded_layers> run() {
    for (auto const step : {&loader::plan, &loader::select, &loader::check_shapes, &loader::read_all}) {
      std::string error = (this->*step)();
      if (!error.empty()) return failure{std::move(error)};
    }
    out_.metadata = archive_.metadata();
    return std::move(out_);
  }

 private:
  tensor_entry const& entry(array_part const& part) const { return archive_.entries()[part.entry]; }
  std::string shown(std::size_t index) const { return printable(archive_.entries()[index].name, 200); }
  std::string shown(array_part const& part) const { return shown(part.entry); }
  std::string shape_text(std::size_t index) const {
    return fmt::format("[{}]", fmt::join(archive_.entries()[index].shape, "]["));
  }

  // Which array of the file is what. Everything else goes to `unused`.
  std::string plan() {
    std::array<std::vector<std::size_t>, 4> stacked;
    std::map<int, planned_layer> by_layer;
    for (std::size_t i = 0; i < archive_.entries().size(); ++i) {
      tensor_entry const& e = archive_.entries()[i];
      if (e.name == "layers" || e.name == "query_positions") {
        if (e.shape.size() != 1 || !is_integer(e.type)) {
          return fmt::format("'{}' is not a one-dimensional array of integers", e.name);
        }
        (e.name == "layers" ? layers_array_ : queries_array_) = array_part{i, 0, e.shape};
        continue;
      }
      auto const name = parse_name(e.name);
      if (!name) {
        out_.unused.push_back(e.name);
      } else if (!name->layer) {
        stacked[static_cast<std::size_t>(name->what)].push_back(i);
      } else {
        planned_layer& layer = by_layer[*name->layer];
        layer.number = *name->layer;
        if (layer[name->what]) {
          return fmt::format("'{}' and '{}' are both the {} of layer {}", shown(*layer[name->what]), shown(i),
                             role_names[static_cast<std::size_t>(name->what)], *name->layer);
        }
        layer[name->what] = array_part{i, 0, e.shape};
      }
    }
    for (auto const& same : stacked) {
      if (same.size() > 1) return fmt::format("'{}' and '{}' mean the same", shown(same[0]), shown(same[1]));
    }
    bool const any_stacked = !stacked[0].empty() || !stacked[1].empty() || !stacked[2].empty();
    if (any_stacked && !by_layer.empty()) {
      return "it holds both arrays of all layers (q, k, v) and arrays of single layers (layers.3.k)";
    }
    if (!any_stacked && by_layer.empty()) return nothing_found();
    if (!by_layer.empty()) {
      for (auto& [number, layer] : by_layer)
        planned_.push_back(std::move(layer));
      if (!stacked[3].empty()) out_.unused.push_back(archive_.entries()[stacked[3][0]].name);
      return drop_unit_axes();
    }
    return plan_stacked(stacked);
  }

  std::string nothing_found() const {
    std::vector<std::string> names;
    for (std::size_t i = 0; i < archive_.entries().size() && i < 5; ++i)
      names.push_back(shown(i));
    if (names.empty()) return "it holds no arrays";
    return fmt::format(
        "it holds no arrays named k and v (or layers.0.k and so on) but {}{}; it should hold recorded "
        "keys and values, not the weights of a model",
        fmt::join(names, ", "), archive_.entries().size() > 5 ? ", ..." : "");
  }

  std::string drop_unit_axes() {
    for (planned_layer& layer : planned_) {
      for (role const r : {role::q, role::k, role::v}) {
        if (layer[r] && layer[r]->shape.size() == 4 && layer[r]->shape[0] == 1) {
          layer[r]->shape.erase(layer[r]->shape.begin());
        }
      }
    }
    return {};
  }

  std::string plan_stacked(std::array<std::vector<std::size_t>, 4> const& stacked) {
    std::optional<std::uint64_t> count;
    for (role const r : {role::k, role::v, role::q}) {
      auto const& found = stacked[static_cast<std::size_t>(r)];
      if (found.empty()) continue;
      tensor_entry const& e = archive_.entries()[found[0]];
      if (e.shape.size() != 3 && e.shape.size() != 4) {
        return fmt::format("'{}' has shape {}; [layer][head][token][dim] or [head][token][dim] is needed",
                           shown(found[0]), shape_text(found[0]));
      }
      std::uint64_t const here = e.shape.size() == 4 ? e.shape[0] : 1;
      if (here < 1 || here > max_header_bytes)
        return fmt::format("'{}' has {} layers", shown(found[0]), here);
      if (count && *count != here) {
        return fmt::format("'{}' has {} layers, another array has {}", shown(found[0]), here, *count);
      }
      count = here;
    }
    std::vector<std::int64_t> numbers(static_cast<std::size_t>(*count));
    std::iota(numbers.begin(), numbers.end(), std::int64_t{0});
    std::string error = read_list("layers", layers_array_, numbers.size(), numbers);
    if (!error.empty()) return error;
    if (std::set<std::int64_t>(numbers.begin(), numbers.end()).size() != numbers.size()) {
      return "'layers' names a layer twice";
    }
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      if (numbers[i] < 0 || numbers[i] > std::numeric_limits<int>::max())
        return "'layers' has an impossible number";
      planned_layer layer;
      layer.number = static_cast<int>(numbers[i]);
      for (role const r : {role::q, role::k, role::v}) {
        auto const& found = stacked[static_cast<std::size_t>(r)];
        if (found.empty()) continue;
        tensor_entry const& e = archive_.entries()[found[0]];
        array_part part{found[0], 0, e.shape};
        if (part.shape.size() == 4) part.shape.erase(part.shape.begin());
        part.first = i * part.elements();
        layer[r] = std::move(part);
      }
      if (!stacked[3].empty()) {
        tensor_entry const& e = archive_.entries()[stacked[3][0]];
        array_part part{stacked[3][0], 0, e.shape};
        if (part.shape.size() == 3) {
          if (part.shape[0] != *count) return fmt::format("'{}' has another number of layers", shown(part));
          part.shape.erase(part.shape.begin());
          part.first = i * part.elements();
        }
        layer[role::position] = std::move(part);
      }
      planned_.push_back(std::move(layer));
    }
    return {};
  }

  // Replaces `numbers` by the integer array or else the metadata of that name, where there is one.
  std::string read_list(std::string const& name, std::optional<array_part> const& array, std::size_t count,
                        std::vector<std::int64_t>& numbers) {
    if (array) {
      if (array->elements() != count) {
        return fmt::format("'{}' has {} numbers, {} are needed", name, array->elements(), count);
      }
      auto values = read_integers(*array);
      if (!values) return values.error;
      numbers = std::move(*values);
      return {};
    }
    auto const text = archive_.metadata().find(name);
    if (text == archive_.metadata().end()) return {};
    auto values = parse_numbers(text->second, count + 1);
    if (!values || values->size() != count) {
      return fmt::format("metadata '{}' is '{}'; {} numbers such as \"2,4\" or \"3-5\" are needed", name,
                         printable(text->second, 80), count);
    }
    numbers = std::move(*values);
    return {};
  }

  std::string select() {
    if (options_.layers.empty()) return {};
    for (int const wanted : options_.layers) {
      if (std::none_of(planned_.begin(), planned_.end(), [&](auto const& l) { return l.number == wanted; })) {
        std::vector<int> there;
        for (planned_layer const& layer : planned_)
          there.push_back(layer.number);
        return fmt::format("it has no layer {}; its layers are {}", wanted, fmt::join(there, " "));
      }
    }
    std::erase_if(planned_, [&](planned_layer const& layer) {
      return std::find(options_.layers.begin(), options_.layers.end(), layer.number) == options_.layers.end();
    });
    return {};
  }

  std::string check_shapes() {
    std::uint64_t total = 0;
    planned_layer const& first = planned_.front();
    for (planned_layer const& layer : planned_) {
      for (role const r : {role::k, role::v}) {
        if (!layer[r]) {
          return fmt::format("layer {} has no {}", layer.number, role_names[static_cast<std::size_t>(r)]);
        }
      }
      if (layer[role::q].has_value() != first[role::q].has_value()) {
        planned_layer const& without = layer[role::q] ? first : layer;
        return fmt::format("layer {} has no q, but other layers have", without.number);
      }
      for (role const r : {role::q, role::k, role::v}) {
        if (!layer[r]) continue;
        std::string error = check_part(layer, first, r);
        if (!error.empty()) return error;
        std::uint64_t const elements = layer[r]->elements();
        if (elements > options_.max_values || total > options_.max_values - elements) {
          return fmt::format("it has more than {} numbers; choose layers", options_.max_values);
        }
        total += elements;
      }
      std::string error = check_agreement(layer);
      if (!error.empty()) return error;
    }
    return {};
  }

  std::string check_part(planned_layer const& layer, planned_layer const& first, role r) const {
    array_part const& part = *layer[r];
    if (!is_float(entry(part).type)) {
      return fmt::format("'{}' has type {}; F16, BF16, F32 or F64 is needed{}{}", shown(part),
                         printable(entry(part).type_name, 40), entry(part).unusable.empty() ? "" : ": ",
                         entry(part).unusable);
    }
    if (!entry(part).unusable.empty())
      return fmt::format("'{}' cannot be read: {}", shown(part), entry(part).unusable);
    if (part.shape.size() != 3) {
      return fmt::format("'{}' has shape {}; [head][token][dim] is needed", shown(part),
                         shape_text(part.entry));
    }
    for (std::uint64_t const extent : part.shape) {
      if (extent < 1 || extent > max_extent) {
        return fmt::format("'{}' has shape {}: every axis must have 1 to {} elements", shown(part),
                           shape_text(part.entry), max_extent);
      }
    }
    if (part.shape != first[r]->shape) {
      return fmt::format("'{}' (layer {}) has another shape than '{}' (layer {}); choose layers of one shape",
                         shown(part), layer.number, shown(*first[r]), first.number);
    }
    return {};
  }

  std::string check_agreement(planned_layer const& layer) const {
    auto const& k = *layer[role::k];
    auto const& v = *layer[role::v];
    if (k.shape[0] != v.shape[0] || k.shape[1] != v.shape[1]) {
      return fmt::format("'{}' and '{}' differ in heads or tokens: {} against {}", shown(k), shown(v),
                         shape_text(k.entry), shape_text(v.entry));
    }
    if (layer[role::q]) {
      auto const& q = *layer[role::q];
      if (q.shape[2] != k.shape[2]) {
        return fmt::format("'{}' has head dimension {}, '{}' has {}", shown(q), q.shape[2], shown(k),
                           k.shape[2]);
      }
      if (q.shape[0] % k.shape[0] != 0) {
        return fmt::format("'{}' has {} heads, not a multiple of the {} heads of '{}'", shown(q), q.shape[0],
                           k.shape[0], shown(k));
      }
      if (q.shape[1] > k.shape[1]) {
        return fmt::format("'{}' has {} tokens, more than the {} of '{}'", shown(q), q.shape[1], k.shape[1],
                           shown(k));
      }
    }
    if (layer[role::position]) {
      auto const& p = *layer[role::position];
      bool const fits =
          (p.shape.size() == 1 && p.shape[0] == k.shape[1]) ||
          (p.shape.size() == 2 && p.shape[1] == k.shape[1] && (p.shape[0] == k.shape[0] || p.shape[0] == 1));
      if (!fits || !is_integer(entry(p).type) || !entry(p).unusable.empty()) {
        return fmt::format("'{}' of shape {} and type {} is not an integer position of each cached token",
                           shown(p), shape_text(p.entry), printable(entry(p).type_name, 40));
      }
    }
    return {};
  }

  std::string read_all() {
    for (planned_layer const& plan : planned_) {
      recorded_layer layer;
      layer.number = plan.number;
      auto const& k = *plan[role::k];
      layer.kv_heads = static_cast<std::int64_t>(k.shape[0]);
      layer.tokens = static_cast<std::int64_t>(k.shape[1]);
      layer.head_dim = static_cast<std::int64_t>(k.shape[2]);
      layer.value_dim = static_cast<std::int64_t>(plan[role::v]->shape[2]);
      layer.k_type = stored_type_of(entry(k).type);
      layer.v_type = stored_type_of(entry(*plan[role::v]).type);
      std::string error = read_floats(k, plan.number, layer.k);
      if (error.empty()) error = read_floats(*plan[role::v], plan.number, layer.v);
      if (error.empty() && plan[role::q]) error = read_queries(plan, layer);
      if (error.empty() && plan[role::position]) error = read_positions(*plan[role::position], layer);
      if (!error.empty()) return error;
      out_.layers.push_back(std::move(layer));
    }
    return {};
  }

  std::string read_queries(planned_layer const& plan, recorded_layer& layer) {
    auto const& q = *plan[role::q];
    layer.query_heads = static_cast<std::int64_t>(q.shape[0]);
    layer.queries = static_cast<std::int64_t>(q.shape[1]);
    layer.q_type = stored_type_of(entry(q).type);
    layer.query_positions.resize(static_cast<std::size_t>(layer.queries));
    std::iota(layer.query_positions.begin(), layer.query_positions.end(), layer.tokens - layer.queries);
    std::string error =
        read_list("query_positions", queries_array_, layer.query_positions.size(), layer.query_positions);
    if (!error.empty()) return error;
    for (std::int64_t const position : layer.query_positions) {
      if (position < 0 || position >= layer.tokens) {
        return fmt::format("query position {} is not one of the {} cached tokens", position, layer.tokens);
      }
    }
    return read_floats(q, plan.number, layer.q);
  }

  std::string read_positions(array_part const& part, recorded_layer& layer) {
    auto const values = read_integers(part);
    if (!values) return values.error;
    layer.key_positions = *values;
    std::size_t const all = static_cast<std::size_t>(layer.kv_heads * layer.tokens);
    while (layer.key_positions.size() < all) {  // the same for every head
      layer.key_positions.insert(layer.key_positions.end(), values->begin(), values->end());
    }
    return {};
  }

  // [head][token][dim] as float; the first value that is not finite is named.
  std::string read_floats(array_part const& part, int layer, std::vector<float>& values) {
    element_type const type = entry(part).type;
    auto const bytes = archive_.read(part.entry, part.first, part.elements());
    if (!bytes) return bytes.error;
    values.resize(static_cast<std::size_t>(part.elements()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] = convert(type, *bytes, i);
      if (!is_finite(values[i])) {
        std::size_t const dims = static_cast<std::size_t>(part.shape[2]);
        std::size_t const tokens = static_cast<std::size_t>(part.shape[1]);
        return fmt::format("'{}' is not finite{} at layer {}, head {}, token {}, dim {}", shown(part),
                           type == element_type::f64 ? " as a 32-bit float" : "", layer, i / dims / tokens,
                           i / dims % tokens, i % dims);
      }
    }
    return {};
  }

  result<std::vector<std::int64_t>> read_integers(array_part const& part) {
    if (!entry(part).unusable.empty()) {
      return failure{fmt::format("'{}' cannot be read: {}", shown(part), entry(part).unusable)};
    }
    if (part.elements() > options_.max_values) return failure{fmt::format("'{}' is too large", shown(part))};
    auto const bytes = archive_.read(part.entry, part.first, part.elements());
    if (!bytes) return failure{bytes.error};
    std::vector<std::int64_t> values(static_cast<std::size_t>(part.elements()));
    for (std::size_t i = 0; i < values.size(); ++i) {
      values[i] =
          entry(part).type == element_type::i64
              ? std::bit_cast<std::int64_t>(little_endian<8>(*bytes, 8 * i))
              : std::bit_cast<std::int32_t>(static_cast<std::uint32_t>(little_endian<4>(*bytes, 4 * i)));
    }
    return values;
  }

  tensor_archive& archive_;
  load_options const& options_;
  std::vector<planned_layer> planned_;
  std::optional<array_part> layers_array_;
  std::optional<array_part> queries_array_;
  recorded_layers out_;
};

result<recorded_layers> load(result<byte_file> file, load_options const& options) {
  if (!file) return failure{file.error};
  if (file->size() == 0) return failure{"the file is empty"};
  std::array<std::byte, 6> start{};
  bool const long_enough = file->read(0, start);
  bool const zip =
      long_enough && (little_endian<4>(start, 0) == 0x04034B50 || little_endian<4>(start, 0) == 0x06054B50);
  if (long_enough && std::to_integer<int>(start[0]) == 0x93 && little_endian<4>(start, 1) == 0x504D554E) {
    return failure{"this is a single .npy array; save q, k and v together with numpy.savez"};
  }
  auto archive = zip ? open_npz(std::move(*file)) : open_safetensors(std::move(*file));
  if (!archive) return failure{archive.error};
  auto loaded = loader(**archive, options).run();
  if (loaded) loaded->format = zip ? "npz" : "safetensors";
  return loaded;
}

// Opens and loads; the error text starts with the name, and nothing is thrown.
template <class Open>
result<recorded_layers> load_named(std::string_view name, load_options const& options, Open const& open) {
  std::string const shown = printable(name, 400);
  try {
    auto loaded = load(open(), options);
    if (!loaded) return failure{fmt::format("{}: {}", shown, loaded.error)};
    return loaded;
  } catch (std::bad_alloc const&) {
    return failure{fmt::format("{}: not enough memory to read it", shown)};
  } catch (std::exception const& e) {
    return failure{fmt::format("{}: {}", shown, e.what())};
  }
}

}  // namespace

std::string_view name_of(stored_type type) noexcept {
  switch (type) {
    case stored_type::f16: return "f16";
    case stored_type::bf16: return "bf16";
    case stored_type::f32: return "f32";
    case stored_type::f64: return "f64";
  }
  return "unknown";
}

float half_to_float(std::uint16_t bits) noexcept {
  std::uint32_t const sign = (bits & 0x8000U) << 16;
  std::uint32_t const exponent = (bits >> 10) & 31U;
  std::uint32_t const mantissa = bits & 1023U;
  if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact
    float const magnitude = static_cast<float>(mantissa) * 0x1p-24F;
    return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
  }
  std::uint32_t const wide = exponent == 31 ? 255U : exponent + 112U;
  return std::bit_cast<float>(sign | (wide << 23) | (mantissa << 13));
}

float bfloat16_to_float(std::uint16_t bits) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

result<recorded_layers> load_tensor_file(std::filesystem::path const& path, load_options const& options) {
  return load_named(path.string(), options, [&] { return byte_file::open(path); });
}

result<recorded_layers> load_tensor_bytes(std::span<std::byte const> bytes, std::string_view name,
                                          load_options const& options) {
  return load_named(name, options, [&] { return result<byte_file>(byte_file(bytes)); });
}

}  // namespace kvcrumb_compare
