# SPDX-License-Identifier: Apache-2.0
# The tests of host kernels (tests/unit/host) on processors that this machine is not: where qemu-user is installed
# (Debian: qemu-user, g++-aarch64-linux-gnu), and otherwise not at all, which the configuration says.
# - AArch64 with the dot product instructions, built by a cross compiler, and one without them; sums also by clang++
# - x86-64 with AVX2 but no AVX-512, and without AVX: nothing may stumble over an instruction that is not there
find_program(KVCRUMB_QEMU_X86_64 qemu-x86_64)
find_program(KVCRUMB_QEMU_AARCH64 qemu-aarch64)
find_program(KVCRUMB_AARCH64_CXX aarch64-linux-gnu-g++)
find_program(KVCRUMB_CLANG_CXX clang++)

if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64" AND KVCRUMB_QEMU_X86_64)
  foreach(processor IN ITEMS Haswell Nehalem)
    add_test(NAME host.x86_64.${processor} COMMAND "${KVCRUMB_QEMU_X86_64}" -cpu ${processor} "$<TARGET_FILE:test_host>" "[host]")
    set_tests_properties(host.x86_64.${processor} PROPERTIES LABELS "host" TIMEOUT 900)
  endforeach()
else()
  message(STATUS "kvcrumb: no qemu-x86_64 (Debian: qemu-user); host kernels are tested on this processor only")
endif()

# Catch2 2.13 is headers only, so the cross compiler needs no library of its own.
find_path(KVCRUMB_CATCH2_HEADER catch2/catch.hpp)
if(KVCRUMB_QEMU_AARCH64 AND KVCRUMB_AARCH64_CXX AND KVCRUMB_CATCH2_HEADER)
  set(program "${CMAKE_CURRENT_BINARY_DIR}/host_tests_aarch64")
  set(sources sums accuracy attend_host_checks attend_codebook encode_codebook)
  list(TRANSFORM sources REPLACE "(.+)" "${CMAKE_CURRENT_LIST_DIR}/unit/host/\\1_test.cpp")
  file(GLOB_RECURSE headers CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/include/kvcrumb/*.hpp"
       "${PROJECT_SOURCE_DIR}/include/kvcrumb/host/target/*.inl" "${CMAKE_CURRENT_LIST_DIR}/unit/host/*.hpp")
  set(objects "")
  foreach(source IN LISTS sources ITEMS "${CMAKE_CURRENT_LIST_DIR}/support/catch_main.cpp")
    cmake_path(GET source STEM name)
    add_custom_command(OUTPUT "aarch64_${name}.o"
      COMMAND "${KVCRUMB_AARCH64_CXX}" -std=c++20 -O1 -Wall -Wextra -Wconversion -Werror "-I${PROJECT_SOURCE_DIR}/include"
              "-I${CMAKE_CURRENT_LIST_DIR}" -idirafter "${KVCRUMB_CATCH2_HEADER}" -c "${source}" -o "aarch64_${name}.o"
      DEPENDS "${source}" ${headers} VERBATIM)
    list(APPEND objects "aarch64_${name}.o")
  endforeach()
  add_custom_command(OUTPUT "${program}"
    COMMAND "${KVCRUMB_AARCH64_CXX}" -static ${objects} -o "${program}" DEPENDS ${objects} VERBATIM)
  add_custom_target(test_host_aarch64 ALL DEPENDS "${program}")
  foreach(processor IN ITEMS max cortex-a72)
    add_test(NAME host.aarch64.${processor} COMMAND "${KVCRUMB_QEMU_AARCH64}" -cpu ${processor} "${program}" "[host]")
    set_tests_properties(host.aarch64.${processor} PROPERTIES LABELS "host" TIMEOUT 900)
  endforeach()
  if(KVCRUMB_CLANG_CXX)  # the same intrinsics are macros there, or missing
    set(source "${CMAKE_CURRENT_LIST_DIR}/unit/host/sums_test.cpp")
    add_custom_command(OUTPUT "${program}_clang"
      COMMAND "${KVCRUMB_CLANG_CXX}" --target=aarch64-linux-gnu -std=c++20 -O1 -Wall -Wextra -Wconversion -Werror
              "-I${PROJECT_SOURCE_DIR}/include" "-I${CMAKE_CURRENT_LIST_DIR}" -idirafter "${KVCRUMB_CATCH2_HEADER}"
              -c "${source}" -o aarch64_clang_sums_test.o
      COMMAND "${KVCRUMB_AARCH64_CXX}" -static aarch64_clang_sums_test.o aarch64_catch_main.o -o "${program}_clang"
      DEPENDS "${source}" aarch64_catch_main.o ${headers} VERBATIM)
    add_custom_target(test_host_aarch64_clang ALL DEPENDS "${program}_clang")
    add_dependencies(test_host_aarch64_clang test_host_aarch64)
    add_test(NAME host.aarch64.clang COMMAND "${KVCRUMB_QEMU_AARCH64}" -cpu max "${program}_clang" "[host]")
    set_tests_properties(host.aarch64.clang PROPERTIES LABELS "host" TIMEOUT 900)
  endif()
else()
  message(STATUS "kvcrumb: no AArch64 tests of host kernels (Debian: qemu-user g++-aarch64-linux-gnu catch2)")
endif()
