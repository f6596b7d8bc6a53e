// SPDX-License-Identifier: Apache-2.0
//! @file Writes the recorded sections and manifest.json into the folder given as the only argument.
#include <cstdio>
#include <fstream>

#include "golden/cases.hpp"
#include "golden/sha256.hpp"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  std::string const folder = argv[1];
  std::string manifest = "{\n  \"format_version\": " + std::to_string(kvcrumb::golden::format_version) +
                         ",\n  \"seed\": " + std::to_string(kvcrumb::golden::seed) + ",\n  \"sections\": [";
  char const* separator = "\n";
  for (auto const& r : kvcrumb::golden::all_recorded()) {
    std::ofstream file(folder + "/" + r.name + ".bin", std::ios::binary);
    file.write(reinterpret_cast<char const*>(r.bytes.data()), static_cast<std::streamsize>(r.bytes.size()));
    manifest += separator;
    manifest += "    {\"file\": \"" + r.name + ".bin\", \"scheme\": \"" + r.description + "\", \"side\": \"" +
                (r.which == kvcrumb::side::key ? "key" : "value") +
                "\", \"head_dim\": " + std::to_string(r.shape.head_dim) +
                ", \"tile_tokens\": " + std::to_string(r.shape.tile_tokens) +
                ", \"kv_heads\": " + std::to_string(r.kv_heads) +
                ", \"bytes\": " + std::to_string(r.bytes.size()) + ",\n     \"sha256\": \"" +
                kvcrumb::golden::sha256(r.bytes) + "\"}";
    separator = ",\n";
    if (!file.flush()) return 1;
  }
  manifest += "\n  ]\n}\n";
  std::ofstream file(folder + "/manifest.json", std::ios::binary);
  file << manifest;
  return file.flush() ? 0 : 1;
}
