// SPDX-License-Identifier: Apache-2.0
//! @file What the .npz reader takes, and that everything else is refused with a reason.
#include "support/catch.hpp"

#include <random>
#include <string>
#include <vector>

#include "archive_builder.hpp"
#include "tensor_file.hpp"

namespace {

using namespace kvcrumb_compare;
using namespace kvcrumb_compare::test;

std::string const shape = "(1, 2, 3, 2)";

std::vector<zip_member> kv_members(bool deflated = false, bool zip64 = false) {
  return {
      {"k.npy", npy_array("<f4", shape, f32_bytes(ramp(12))), deflated, zip64},
      {"v.npy", npy_array("<f8", shape, f64_bytes({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11})), deflated, zip64}};
}

// The archive after a change to its first member.
template <class Change>
result<recorded_layers> load_changed(Change const& change, bool deflated = false) {
  std::vector<zip_member> members = kv_members(deflated);
  change(members[0]);
  return load_bytes(zip_file(members));
}

result<recorded_layers> load_with_k(std::string const& npy) {
  return load_changed([&](zip_member& m) { m.content = npy; });
}

}  // namespace

TEST_CASE("a .npz archive gives the arrays, stored, deflated and with zip64 sizes") {
  for (bool const deflated : {false, true}) {
    for (bool const zip64 : {false, true}) {
      CAPTURE(deflated, zip64);
      std::vector<zip_member> members = kv_members(deflated, zip64);
      members.push_back({"q.npy",
                         npy_array("<f2", "(1, 4, 1, 2)", f16_bytes(std::vector<std::uint16_t>(8, 0x3C00))),
                         deflated});
      members.push_back({"layers.npy", npy_array("<i8", "(1,)", little_endian_bytes(9, 8)), deflated});
      members.push_back(
          {"query_positions.npy", npy_array("<i4", "(1,)", little_endian_bytes(1, 4)), deflated});
      members.push_back({"notes.txt", "not an array", deflated});
      scratch_file const file(zip_file(members), ".npz");
      auto const loaded = load_tensor_file(file.path());
      INFO(loaded.error);
      REQUIRE(loaded);
      CHECK(loaded->format == "npz");
      recorded_layer const& layer = loaded->layers.at(0);
      CHECK(layer.number == 9);
      CHECK(layer.k == ramp(12));
      CHECK(layer.v == ramp(12));
      CHECK(layer.q == std::vector<float>(8, 1.0F));
      CHECK(layer.q_type == stored_type::f16);
      CHECK(layer.v_type == stored_type::f64);
      CHECK(layer.query_positions == std::vector<std::int64_t>{1});
    }
  }
}

TEST_CASE("several layers are cut out of one member") {
  std::vector<zip_member> const members{
      {"k.npy", npy_array("<f4", "(3, 1, 2, 2)", f32_bytes(ramp(12))), true},
      {"v.npy", npy_array("<f4", "(3, 1, 2, 1)", f32_bytes(ramp(6))), true}};
  load_options options;
  options.layers = {2};
  auto const loaded = load_bytes(zip_file(members), options);
  REQUIRE(loaded);
  CHECK(loaded->layers.at(0).k == ramp(4, 8));
  CHECK(loaded->layers.at(0).v == ramp(2, 4));
}

TEST_CASE("arrays of a kind that is not read are refused by name") {
  std::string const data = f32_bytes(ramp(12));
  CHECK(refused(load_with_k(npy_array(">f4", shape, data)), ">f4"));
  CHECK(refused(load_with_k(npy_array("<i4", shape, data)), "type <i4"));
  CHECK(refused(load_with_k(npy_array("|V2", shape, data.substr(24))), "use .safetensors"));
  CHECK(refused(load_with_k(npy_array("<f4", shape, data, true)), "Fortran order"));
  CHECK(refused(load_with_k(npy_array("<f4", "(1, 2, 3, 3)", data)), "do not match"));
  CHECK(refused(load_with_k(npy_array("<f4", "(4294967296, 4294967296)", data)), "overflows"));
  CHECK(refused(load_with_k(npy_array("<f4", "(9223372036854775807,)", data)), "overflows"));
  CHECK(refused(load_with_k(npy_array("<f4", "(4611686018427387904,)", data)), "do not match"));
  CHECK(refused(load_with_k(npy_array("<f4", "(1, 1, 1, 1, 1, 1, 1, 1, 12)", data)), "more than 8 axes"));
  for (char const* const bad : {"(1, -2)", "(1 2)", "1", "(1,", "(1, 99999999999999999999)", "(a)"}) {
    CAPTURE(bad);
    CHECK(refused(load_with_k(npy_array("<f4", bad, data)), "cannot be understood"));
  }
  CHECK(refused(load_with_k("too short"), "not a .npy array"));
  CHECK(refused(load_with_k("this is no array, but long enough to be one"), "not a .npy array"));
  std::string foreign = npy_array("<f4", shape, data);
  foreign[6] = 9;
  CHECK(refused(load_with_k(foreign), ".npy version 9"));
  foreign = npy_array("<f4", shape, data);
  foreign[9] = '\x7F';
  CHECK(refused(load_with_k(foreign), "not a .npy array"));
  CHECK(refused(load_bytes(npy_array("<f4", shape, data)), "numpy.savez"));
}

TEST_CASE("damaged archives are refused") {
  for (bool const deflated : {false, true}) {
    CAPTURE(deflated);
    CHECK(refused(load_changed([](zip_member& m) { m.crc_error = 1; }, deflated), "CRC"));
    CHECK(refused(load_changed([](zip_member& m) { m.place_error = 7; }, deflated),
                  "not where the zip directory says"));
    CHECK(refused(load_changed([](zip_member& m) { m.place_error = 1U << 30; }, deflated), "not where"));
    CHECK(refused(
        load_changed([](zip_member& m) { m.size_error = 0xFFFFFFFF - m.content.size() - 1; }, deflated),
        "contradict"));
    CHECK(refused(load_changed([](zip_member& m) { m.flags = 1; }, deflated), "encrypted"));
    CHECK(refused(load_changed([](zip_member& m) { m.method = 12; }, deflated), "zip compression 12"));
    CHECK(!load_changed([](zip_member& m) { m.size_error = 4; }, deflated));
    CHECK(refused(load_changed([](zip_member& m) { m.name = "v.npy"; }, deflated), "occurs twice"));
  }
  CHECK(refused(load_bytes(zip_file({})), "no arrays"));
  CHECK(refused(load_bytes(zip_file(kv_members()) + "rest"), "zip directory at its end is missing"));
}

TEST_CASE("every truncation and many single-byte changes of an archive give a result or a reason") {
  for (bool const deflated : {false, true}) {
    std::string const whole = zip_file(kv_members(deflated));
    for (std::size_t size = 0; size < whole.size(); ++size) {
      auto const loaded = load_bytes(whole.substr(0, size));
      if (loaded || loaded.error.empty()) FAIL("accepted " << size << " of " << whole.size() << " bytes");
    }
    std::mt19937 random(2);
    for (int i = 0; i < 3000; ++i) {
      std::string changed = whole;
      changed[random() % changed.size()] = static_cast<char>(random());
      auto const loaded = load_bytes(changed);
      if (loaded.error.empty() == !loaded) FAIL("change " << i);
    }
  }
}
