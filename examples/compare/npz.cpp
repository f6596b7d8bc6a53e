// SPDX-License-Identifier: Apache-2.0
//! @file open_npz: see tensor_archive.hpp. Zip layout: PKWARE APPNOTE 6.3.10, sections 4.3 and 4.5.3.
#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <zlib.h>

#include "tensor_archive.hpp"
#include "text.hpp"

namespace kvcrumb_compare {
namespace {

constexpr std::uint32_t absent32 = 0xFFFFFFFF;  // the value is in the zip64 extra field
constexpr std::uint16_t absent16 = 0xFFFF;

// One member of the archive; [data, data + stored_size) lies inside the file.
struct member {
  std::string name;
  bool deflated = false;
  std::uint32_t crc = 0;
  std::uint64_t data = 0;
  std::uint64_t stored_size = 0;
  std::uint64_t size = 0;
};

struct directory_position {
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  std::uint64_t entries = 0;
};

result<directory_position> find_directory(byte_file& file) {
  constexpr std::uint64_t record_size = 22;
  if (file.size() < record_size) return failure{"not a .npz file: too few bytes for a zip archive"};
  std::uint64_t const span = std::min<std::uint64_t>(file.size(), record_size + 0xFFFF);
  std::uint64_t const start = file.size() - span;
  std::vector<std::byte> bytes(static_cast<std::size_t>(span));
  if (!file.read(start, bytes)) return failure{"its end cannot be read"};
  std::optional<std::size_t> record;
  for (std::size_t i = bytes.size() - record_size + 1; i-- > 0;) {
    if (little_endian<4>(bytes, i) == 0x06054B50 &&
        i + record_size + little_endian<2>(bytes, i + 20) == bytes.size()) {
      record = i;
      break;
    }
  }
  if (!record) return failure{"not a .npz file, or truncated: the zip directory at its end is missing"};
  std::uint64_t limit = start + *record;
  directory_position found{little_endian<4>(bytes, *record + 16), little_endian<4>(bytes, *record + 12),
                           little_endian<2>(bytes, *record + 10)};
  if (found.offset == absent32 || found.size == absent32 || found.entries == absent16) {
    std::array<std::byte, 20> locator{};
    std::array<std::byte, 56> wide{};
    if (limit < locator.size() || !file.read(limit - locator.size(), locator) ||
        little_endian<4>(locator, 0) != 0x07064B50) {
      return failure{"its zip64 directory is missing"};
    }
    limit = little_endian<8>(locator, 8);
    if (!file.read(limit, wide) || little_endian<4>(wide, 0) != 0x06064B50) {
      return failure{"its zip64 directory is missing"};
    }
    found = {little_endian<8>(wide, 48), little_endian<8>(wide, 40), little_endian<8>(wide, 32)};
  }
  if (found.offset > limit || found.size > limit - found.offset) {
    return failure{"its zip directory lies outside the file"};
  }
  if (found.size > max_header_bytes) return failure{"its zip directory is too large"};
  if (found.entries > found.size / 46)
    return failure{"its zip directory is shorter than its number of entries"};
  return found;
}

// Replaces the sizes that stand in the zip64 extra field (id 1). False if they are not there.
bool take_zip64(std::span<std::byte const> extra, std::uint64_t& size, std::uint64_t& stored,
                std::uint64_t& offset) {
  bool const wanted = size == absent32 || stored == absent32 || offset == absent32;
  while (extra.size() >= 4) {
    std::uint64_t const id = little_endian<2>(extra, 0);
    std::size_t const length = static_cast<std::size_t>(little_endian<2>(extra, 2));
    if (length > extra.size() - 4) return !wanted;
    if (id == 1) {
      std::span<std::byte const> field = extra.subspan(4, length);
      for (std::uint64_t* value : {&size, &stored, &offset}) {
        if (*value != absent32) continue;
        if (field.size() < 8) return false;
        *value = little_endian<8>(field, 0);
        field = field.subspan(8);
      }
      return true;
    }
    extra = extra.subspan(4 + length);
  }
  return !wanted;
}

result<std::vector<member>> read_directory(byte_file& file, directory_position const& where) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(where.size));
  if (!file.read(where.offset, bytes)) return failure{"its zip directory cannot be read"};
  std::vector<member> members;
  std::span<std::byte const> rest(bytes);
  for (std::uint64_t i = 0; i < where.entries; ++i) {
    if (rest.size() < 46 || little_endian<4>(rest, 0) != 0x02014B50)
      return failure{"its zip directory is damaged"};
    std::size_t const name_size = static_cast<std::size_t>(little_endian<2>(rest, 28));
    std::size_t const extra_size = static_cast<std::size_t>(little_endian<2>(rest, 30));
    std::size_t const comment_size = static_cast<std::size_t>(little_endian<2>(rest, 32));
    if (name_size + extra_size + comment_size > rest.size() - 46)
      return failure{"its zip directory is damaged"};
    member m;
    m.name.assign(reinterpret_cast<char const*>(rest.data()) + 46, name_size);
    std::string const shown = printable(m.name, 200);
    std::uint64_t const flags = little_endian<2>(rest, 8);
    std::uint64_t const method = little_endian<2>(rest, 10);
    m.crc = static_cast<std::uint32_t>(little_endian<4>(rest, 16));
    m.stored_size = little_endian<4>(rest, 20);
    m.size = little_endian<4>(rest, 24);
    std::uint64_t header = little_endian<4>(rest, 42);
    if (!take_zip64(rest.subspan(46 + name_size, extra_size), m.size, m.stored_size, header)) {
      return failure{fmt::format("member '{}' has no zip64 sizes", shown)};
    }
    rest = rest.subspan(46 + name_size + extra_size + comment_size);
    if ((flags & 1U) != 0) return failure{fmt::format("member '{}' is encrypted", shown)};
    if (method != 0 && method != 8) {
      return failure{
          fmt::format("member '{}' uses zip compression {}; stored and deflated are read", shown, method)};
    }
    m.deflated = method == 8;
    std::array<std::byte, 30> local{};
    if (!file.read(header, local) || little_endian<4>(local, 0) != 0x04034B50) {
      return failure{fmt::format("member '{}' is not where the zip directory says", shown)};
    }
    m.data = header + local.size() + little_endian<2>(local, 26) + little_endian<2>(local, 28);
    if (m.data > where.offset || m.stored_size > where.offset - m.data) {
      return failure{fmt::format("member '{}' runs past the end of the file's data", shown)};
    }
    // Deflate cannot expand more than 1032:1 (a match of 258 bytes in 2 bits).
    bool const possible = m.deflated ? m.size / 1032 <= m.stored_size + 1 : m.size == m.stored_size;
    if (!possible) return failure{fmt::format("member '{}' has sizes that contradict each other", shown)};
    members.push_back(std::move(m));
  }
  return members;
}

// The first `count` <= m.size bytes of a member. When that is all of it, the CRC is checked too.
result<std::vector<std::byte>> read_member(byte_file& file, member const& m, std::uint64_t count) {
  std::string const shown = printable(m.name, 200);
  std::vector<std::byte> out(static_cast<std::size_t>(count));
  if (!m.deflated) {
    if (!file.read(m.data, out)) return failure{fmt::format("member '{}' cannot be read", shown)};
  } else {
    z_stream stream{};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return failure{"zlib cannot start"};
    std::vector<std::byte> chunk(static_cast<std::size_t>(std::min<std::uint64_t>(m.stored_size, 1U << 16)));
    std::uint64_t consumed = 0;
    std::size_t produced = 0;
    int code = Z_OK;
    while (produced < out.size() && code == Z_OK) {
      if (stream.avail_in == 0) {
        std::size_t const step =
            static_cast<std::size_t>(std::min<std::uint64_t>(chunk.size(), m.stored_size - consumed));
        if (step == 0 || !file.read(m.data + consumed, std::span(chunk).first(step))) break;
        consumed += step;
        stream.next_in = reinterpret_cast<Bytef*>(chunk.data());
        stream.avail_in = static_cast<uInt>(step);
      }
      std::size_t const room = std::min<std::size_t>(out.size() - produced, std::size_t{1} << 30);
      stream.next_out = reinterpret_cast<Bytef*>(out.data() + produced);
      stream.avail_out = static_cast<uInt>(room);
      code = inflate(&stream, Z_NO_FLUSH);
      produced += room - stream.avail_out;
    }
    inflateEnd(&stream);
    if (produced != out.size()) {
      return failure{fmt::format("member '{}' is damaged: it does not inflate to {} bytes", shown, m.size)};
    }
  }
  if (count == m.size) {
    uLong crc = crc32(0, nullptr, 0);
    for (std::size_t i = 0; i < out.size();) {
      std::size_t const step = std::min<std::size_t>(out.size() - i, std::size_t{1} << 30);
      crc = crc32(crc, reinterpret_cast<Bytef const*>(out.data() + i), static_cast<uInt>(step));
      i += step;
    }
    if (crc != m.crc) return failure{fmt::format("member '{}' is damaged: its CRC is wrong", shown)};
  }
  return out;
}

// The dictionary of a .npy header: {'descr': '<f2', 'fortran_order': False, 'shape': (2, 3), }
struct npy_header {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::uint64_t> shape;
};

class literal_reader {
 public:
  explicit literal_reader(std::string_view text) : text_(text) {}

  bool take(char c) {
    skip_spaces();
    if (text_.empty() || text_.front() != c) return false;
    text_.remove_prefix(1);
    return true;
  }

  std::optional<std::string> string() {
    skip_spaces();
    if (text_.empty() || (text_.front() != '\'' && text_.front() != '"')) return std::nullopt;
    std::size_t const end = text_.find(text_.front(), 1);
    if (end == std::string_view::npos) return std::nullopt;
    std::string found(text_.substr(1, end - 1));
    text_.remove_prefix(end + 1);
    return found;
  }

  std::optional<bool> boolean() {
    skip_spaces();
    for (auto const& [word, value] : {std::pair<std::string_view, bool>{"True", true}, {"False", false}}) {
      if (text_.substr(0, word.size()) == word) {
        text_.remove_prefix(word.size());
        return value;
      }
    }
    return std::nullopt;
  }

  std::optional<std::vector<std::uint64_t>> tuple() {
    if (!take('(')) return std::nullopt;
    std::vector<std::uint64_t> values;
    while (!take(')')) {
      skip_spaces();
      std::uint64_t value = 0;
      auto const [end, code] = std::from_chars(text_.data(), text_.data() + text_.size(), value);
      if (code != std::errc{}) return std::nullopt;
      text_.remove_prefix(static_cast<std::size_t>(end - text_.data()));
      values.push_back(value);
      if (!take(',')) return take(')') ? std::optional(values) : std::nullopt;
    }
    return values;
  }

 private:
  void skip_spaces() {
    while (!text_.empty() && (text_.front() == ' ' || text_.front() == '\n'))
      text_.remove_prefix(1);
  }
  std::string_view text_;
};

std::optional<npy_header> parse_npy_header(std::string_view text) {
  literal_reader in(text);
  npy_header header;
  std::set<std::string> keys;
  if (!in.take('{')) return std::nullopt;
  while (!in.take('}')) {
    auto const key = in.string();
    if (!key || !in.take(':') || !keys.insert(*key).second) return std::nullopt;
    if (*key == "descr") {
      if (in.take('[')) {  // a structured type: its description is not needed to refuse it
        header.descr = "structured";
        return header;
      }
      auto value = in.string();
      if (!value) return std::nullopt;
      header.descr = std::move(*value);
    } else if (*key == "fortran_order") {
      auto const value = in.boolean();
      if (!value) return std::nullopt;
      header.fortran_order = *value;
    } else if (*key == "shape") {
      auto value = in.tuple();
      if (!value) return std::nullopt;
      header.shape = std::move(*value);
    } else {
      return std::nullopt;
    }
    if (!in.take(',')) {
      if (!in.take('}')) return std::nullopt;
      break;
    }
  }
  return keys.size() == 3 ? std::optional(header) : std::nullopt;
}

element_type type_of(std::string const& descr) {
  if (descr == "<f2") return element_type::f16;
  if (descr == "<f4") return element_type::f32;
  if (descr == "<f8") return element_type::f64;
  if (descr == "<i4") return element_type::i32;
  if (descr == "<i8") return element_type::i64;
  return element_type::other;
}

struct npy_array {
  member source;
  std::uint64_t header_size = 0;
};

// Reads the header of one .npy member. Returns an error text, empty if all is well.
std::string read_npy_header(byte_file& file, member const& m, tensor_entry& entry, npy_array& array) {
  std::string const shown = printable(m.name, 200);
  std::string const damaged = fmt::format("member '{}' is not a .npy array", shown);
  if (m.size < 12) return damaged;
  auto const start = read_member(file, m, 12);
  if (!start) return start.error;
  if (std::to_integer<int>((*start)[0]) != 0x93 || little_endian<4>(*start, 1) != 0x504D554E) return damaged;
  int const version = std::to_integer<int>((*start)[6]);
  if (version < 1 || version > 3) return fmt::format("member '{}' has .npy version {}", shown, version);
  std::uint64_t const text_start = version == 1 ? 10 : 12;
  std::uint64_t const text_size = version == 1 ? little_endian<2>(*start, 8) : little_endian<4>(*start, 8);
  if (text_size > m.size - text_start || text_size > (1U << 20)) return damaged;
  auto const bytes = read_member(file, m, text_start + text_size);
  if (!bytes) return bytes.error;
  auto header = parse_npy_header(std::string_view(reinterpret_cast<char const*>(bytes->data()) + text_start,
                                                  static_cast<std::size_t>(text_size)));
  if (!header) return fmt::format("member '{}' has a .npy header that cannot be understood", shown);
  entry.type = type_of(header->descr);
  entry.type_name = header->descr;
  entry.shape = std::move(header->shape);
  if (entry.shape.size() > max_rank) return fmt::format("member '{}' has more than {} axes", shown, max_rank);
  entry.elements = 1;
  for (std::uint64_t const extent : entry.shape) {
    if (!multiply_into(entry.elements, extent)) {
      return fmt::format("member '{}': the product of its shape overflows", shown);
    }
  }
  if (entry.type == element_type::other) {
    entry.unusable =
        fmt::format("type {} is not one of <f2 <f4 <f8{}", printable(header->descr, 40),
                    header->descr == "|V2" ? " (bfloat16 has no .npy type: use .safetensors)" : "");
  } else {
    std::uint64_t need = size_of(entry.type);
    if (!multiply_into(need, entry.elements) || need != m.size - text_start - text_size) {
      return fmt::format("member '{}': its shape and type do not match its {} bytes of data", shown,
                         m.size - text_start - text_size);
    }
    if (m.size > max_member_bytes)
      entry.unusable = fmt::format("it has more than {} bytes", max_member_bytes);
    if (header->fortran_order) entry.unusable = "it is in Fortran order; save numpy.ascontiguousarray(x)";
  }
  array = {m, text_start + text_size};
  return {};
}

class npz_archive final : public tensor_archive {
 public:
  npz_archive(byte_file file, std::vector<tensor_entry> entries, std::vector<npy_array> arrays)
      : file_(std::move(file)), arrays_(std::move(arrays)) {
    entries_ = std::move(entries);
  }

  result<std::vector<std::byte>> read(std::size_t index, std::uint64_t first, std::uint64_t count) override {
    if (held_ != index) {  // the CRC can only be checked on a whole member
      auto whole = read_member(file_, arrays_[index].source, arrays_[index].source.size);
      if (!whole) return whole;
      bytes_ = std::move(*whole);
      held_ = index;
    }
    std::uint64_t const size = size_of(entries_[index].type);
    auto const begin =
        bytes_.begin() + static_cast<std::ptrdiff_t>(arrays_[index].header_size + first * size);
    return std::vector<std::byte>(begin, begin + static_cast<std::ptrdiff_t>(count * size));
  }

 private:
  byte_file file_;
  std::vector<npy_array> arrays_;
  std::optional<std::size_t> held_;
  std::vector<std::byte> bytes_;
};

}  // namespace

result<std::unique_ptr<tensor_archive>> open_npz(byte_file file) {
  auto const where = find_directory(file);
  if (!where) return failure{where.error};
  auto const members = read_directory(file, *where);
  if (!members) return failure{members.error};
  std::vector<tensor_entry> entries;
  std::vector<npy_array> arrays;
  std::set<std::string> names;
  for (member const& m : *members) {
    if (!m.name.ends_with(".npy")) continue;
    tensor_entry entry;
    npy_array array;
    std::string error = read_npy_header(file, m, entry, array);
    if (!error.empty()) return failure{std::move(error)};
    entry.name = m.name.substr(0, m.name.size() - 4);
    if (!names.insert(entry.name).second) {
      return failure{fmt::format("the name '{}' occurs twice", printable(entry.name, 200))};
    }
    entries.push_back(std::move(entry));
    arrays.push_back(std::move(array));
  }
  return std::unique_ptr<tensor_archive>(
      std::make_unique<npz_archive>(std::move(file), std::move(entries), std::move(arrays)));
}

}  // namespace kvcrumb_compare
