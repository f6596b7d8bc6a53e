# SPDX-License-Identifier: Apache-2.0
# Tests of kernels without a GPU: the kernels are compiled as plain C++20 and run under the emulator of support/simt (its
# README.md says what that proves). Label `simt`.
#   tests/unit/simt/*_test.cpp -> test_simt, the emulator itself
#   tests/cuda/<name>_test.cpp -> test_cuda_<name>, one program each, because each has minutes of templates
#                                 and test_cuda_<name>_no_bulk_copy for the names below: what devices before sm_90 run
# Under MemorySanitizer support/catch.hpp takes support/simt/plain in the place of Catch2.
# `-include support/simt/simt.hpp` is how the kernels become C++; it comes with the precompiled header where there is one.

# Compiling takes longer than running: decode_schemes_test.cpp 39 + 3 s at -O0, 94 + 1 s at -O1 (g++ 12.2); only under
# TSan is it the other way.
include(CMakeDependentOption)
set(KVCRUMB_SIMT_OPTIMIZE "-O0" CACHE STRING "Optimization of emulated kernels")
# g++ without sanitizers takes everything; the others compile for minutes and see the same source in fewer shapes.
set(kvcrumb_simt_full ON)
if(KVCRUMB_SANITIZE OR NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  set(kvcrumb_simt_full OFF)
endif()
cmake_dependent_option(KVCRUMB_SIMT_LIGHT
  "Emulated tests run fewer shapes and schedules (defines KVCRUMB_SIMT_LIGHT)" OFF kvcrumb_simt_full ON)
cmake_dependent_option(KVCRUMB_SIMT_WITHOUT_BULK_COPY
  "Build some emulated tests once more with KVCRUMB_SIMT_NO_BULK_COPY" ON kvcrumb_simt_full OFF)
set(kvcrumb_simt_without_bulk_copy "^decode_shapes$")

# The scheduler must not be seen by sanitizers; it talks to them itself.
file(GLOB simt_runtime CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/support/simt/*.cpp")
add_library(kvcrumb_simt_runtime OBJECT ${simt_runtime})
target_compile_features(kvcrumb_simt_runtime PRIVATE cxx_std_20)
target_include_directories(kvcrumb_simt_runtime PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}")
target_compile_options(kvcrumb_simt_runtime PRIVATE -O2 -Wall -Wextra -Wshadow)

add_library(kvcrumb_simt_support INTERFACE)
target_link_libraries(kvcrumb_simt_support INTERFACE kvcrumb_test_support)
target_compile_options(kvcrumb_simt_support INTERFACE "${KVCRUMB_SIMT_OPTIMIZE}" -g1 -fno-strict-aliasing
  -Wno-unknown-pragmas)
set(kvcrumb_simt_main kvcrumb_test_main)
if(KVCRUMB_SANITIZE MATCHES "memory")
  target_compile_options(kvcrumb_simt_support INTERFACE -D_GLIBCXX_EXTERN_TEMPLATE=0 -Wno-unused)
  add_library(kvcrumb_simt_plain_main OBJECT support/simt/plain/main.cpp)
  target_link_libraries(kvcrumb_simt_plain_main PRIVATE kvcrumb_simt_support)
  set(kvcrumb_simt_main kvcrumb_simt_plain_main)
endif()
if(KVCRUMB_SIMT_LIGHT)
  target_compile_definitions(kvcrumb_simt_support INTERFACE KVCRUMB_SIMT_LIGHT)
endif()

if(KVCRUMB_TEST_PCH)
  add_library(kvcrumb_simt_precompiled OBJECT support/catch_precompiled.cpp)
  target_link_libraries(kvcrumb_simt_precompiled PRIVATE kvcrumb_simt_support)
  target_precompile_headers(kvcrumb_simt_precompiled PRIVATE support/simt/simt.hpp support/catch.hpp)
endif()

# kvcrumb_add_simt(program SOURCES ... [OPTIONS ...])
function(kvcrumb_add_simt program)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;OPTIONS")
  add_executable(${program} ${arg_SOURCES} $<TARGET_OBJECTS:kvcrumb_simt_runtime>)
  target_link_libraries(${program} PRIVATE kvcrumb_simt_support ${kvcrumb_simt_main})
  target_compile_options(${program} PRIVATE ${arg_OPTIONS})
  if(KVCRUMB_TEST_PCH AND NOT arg_OPTIONS)
    target_precompile_headers(${program} REUSE_FROM kvcrumb_simt_precompiled)
  else()
    target_compile_options(${program} PRIVATE -include "${CMAKE_CURRENT_SOURCE_DIR}/support/simt/simt.hpp")
  endif()
  kvcrumb_register_catch(${program} host simt)
endfunction()

file(GLOB simt_tests CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/unit/simt/*_test.cpp")
if(simt_tests)
  kvcrumb_add_simt(test_simt SOURCES ${simt_tests})
endif()
file(GLOB simt_tests CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/cuda/*_test.cpp")
foreach(source IN LISTS simt_tests)
  cmake_path(GET source STEM name)
  string(REGEX REPLACE "_test$" "" name "${name}")
  if(KVCRUMB_SIMT_LIGHT AND name MATCHES "^decode_(schemes|shapes)$")
    continue()  # large tiles; decode_small* have every kind of scheme, mask and split on small ones
  endif()
  kvcrumb_add_simt(test_cuda_${name} SOURCES "${source}")
  if(KVCRUMB_SIMT_WITHOUT_BULK_COPY AND name MATCHES "${kvcrumb_simt_without_bulk_copy}")
    kvcrumb_add_simt(test_cuda_${name}_no_bulk_copy SOURCES "${source}" OPTIONS -DKVCRUMB_SIMT_NO_BULK_COPY)
  endif()
endforeach()
kvcrumb_add_simt(test_gpu_soak SOURCES "${CMAKE_CURRENT_SOURCE_DIR}/gpu/decode_soak_test.cpp")
