// SPDX-License-Identifier: Apache-2.0
//! @file Today's bytes against the recorded ones, and the recorded ones against their manifest.
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "golden/cases.hpp"
#include "golden/sha256.hpp"
#include "support/catch.hpp"

using namespace kvcrumb;

namespace {

std::string text_of(std::string const& name) {
  std::ifstream file(std::string(KVCRUMB_GOLDEN_DIR) + "/" + name, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::byte> bytes_of(std::string const& name) {
  std::string const text = text_of(name);
  std::vector<std::byte> bytes;
  for (char const c : text)
    bytes.push_back(static_cast<std::byte>(c));
  return bytes;
}

}  // namespace

TEST_CASE("SHA-256 of the published test vectors", "[golden]") {
  CHECK(golden::sha256({}) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(golden::sha256({std::byte{'a'}, std::byte{'b'}, std::byte{'c'}}) ==
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_CASE("sections have the recorded bytes", "[golden]") {
  for (auto const& r : golden::all_recorded()) {
    CAPTURE(r.name);
    auto const recorded = bytes_of(r.name + ".bin");
    REQUIRE(recorded.size() == r.bytes.size());
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < recorded.size(); ++i)
      wrong += recorded[i] != r.bytes[i] ? 1 : 0;
    CHECK(wrong == 0);
  }
}

TEST_CASE("the manifest names every recorded file with its digest", "[golden]") {
  std::string const manifest = text_of("manifest.json");
  CHECK(manifest.find("\"format_version\": " + std::to_string(golden::format_version) + ",") !=
        std::string::npos);
  std::size_t files = 0;
  std::uintmax_t total = 0;
  for (auto const& entry : std::filesystem::directory_iterator(KVCRUMB_GOLDEN_DIR)) {
    if (entry.path().extension() != ".bin") continue;
    ++files;
    total += entry.file_size();
    std::string const name = entry.path().filename().string();
    CAPTURE(name);
    CHECK(manifest.find("\"" + name + "\"") != std::string::npos);
    CHECK(manifest.find(golden::sha256(bytes_of(name))) != std::string::npos);
  }
  CHECK(files == golden::all_recorded().size());
  CHECK(total < 150 * 1024);
}
