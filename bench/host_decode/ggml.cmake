# SPDX-License-Identifier: Apache-2.0
# ggml as the other side of bench_host_decode, only where a checkout of https://github.com/ggml-org/ggml is named:
#
#   cmake --preset bench -DKVCRUMB_GGML_DIR=<checkout>
#
# It is built inside our build tree, as its own CMake files build it for this machine (GGML_NATIVE=ON, -O3), with two
# differences: static libraries, and its own thread pool instead of OpenMP, since only the pool can be put to sleep
# while the other side is timed. -DGGML_OPENMP=ON brings OpenMP back; set OMP_WAIT_POLICY=passive then, or its threads
# spin while the other side is timed.
#
# Makes the target kvcrumb_ggml_side; whatever links to it sees KVCRUMB_BENCH_GGML defined.
set(KVCRUMB_GGML_DIR "" CACHE PATH "A checkout of ggml to measure against, or empty")
option(KVCRUMB_GGML_NATIVE_BASE
       "Compile ggml-base for this machine, too; ggml's own build does so for ggml-cpu only" OFF)

# A function, because the flags of our preset must not reach ggml.
function(kvcrumb_add_ggml)
  set(CMAKE_CXX_FLAGS_RELEASE "-O3 -DNDEBUG")
  set(CMAKE_C_FLAGS_RELEASE "-O3 -DNDEBUG")
  unset(CMAKE_CXX_EXTENSIONS)
  set(BUILD_SHARED_LIBS OFF)
  set(GGML_NATIVE ON CACHE BOOL "ggml: optimize the build for the current system")
  set(GGML_OPENMP OFF CACHE BOOL "ggml: use OpenMP")
  set(GGML_CCACHE OFF CACHE BOOL "ggml: use ccache if available")
  add_subdirectory("${KVCRUMB_GGML_DIR}" "${CMAKE_CURRENT_BINARY_DIR}/ggml" EXCLUDE_FROM_ALL)
endfunction()

if(KVCRUMB_GGML_DIR)
  if(NOT EXISTS "${KVCRUMB_GGML_DIR}/include/ggml-cpu.h")
    message(FATAL_ERROR "kvcrumb: KVCRUMB_GGML_DIR=${KVCRUMB_GGML_DIR} is no checkout of ggml")
  endif()
  kvcrumb_add_ggml()
  if(KVCRUMB_GGML_NATIVE_BASE)
    target_compile_options(ggml-base PRIVATE -march=native)
  endif()

  add_library(kvcrumb_ggml_side STATIC EXCLUDE_FROM_ALL
    "${CMAKE_CURRENT_LIST_DIR}/ggml_side.cpp" "${CMAKE_CURRENT_LIST_DIR}/ggml_check.cpp")
  target_link_libraries(kvcrumb_ggml_side PRIVATE kvcrumb_developer ggml)
  target_include_directories(kvcrumb_ggml_side PRIVATE "${CMAKE_CURRENT_LIST_DIR}/..")
  # SYSTEM: their headers are not written for our warnings.
  target_include_directories(kvcrumb_ggml_side SYSTEM PRIVATE "${KVCRUMB_GGML_DIR}/include")
  target_compile_definitions(kvcrumb_ggml_side INTERFACE KVCRUMB_BENCH_GGML=1)
endif()
