# SPDX-License-Identifier: Apache-2.0
# What the tests, examples, benchmarks and fuzz targets of kvcrumb need. A consumer never sees this file.

set(KVCRUMB_SANITIZE "" CACHE STRING "Value of -fsanitize= for everything that is built here, or empty")

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_CXX_EXTENSIONS OFF)

# kvcrumb_developer: the library as we compile it ourselves, with warnings and sanitizers.
add_library(kvcrumb_developer INTERFACE)
target_link_libraries(kvcrumb_developer INTERFACE kvcrumb::kvcrumb)
target_compile_options(kvcrumb_developer INTERFACE
  "$<$<COMPILE_LANG_AND_ID:CXX,GNU,Clang,AppleClang>:-Wall;-Wextra;-Wpedantic;-Wconversion;-Wshadow>"
  "$<$<COMPILE_LANG_AND_ID:CUDA,NVIDIA>:-Xcompiler=-Wall,-Wextra>")
if(KVCRUMB_WERROR)
  target_compile_options(kvcrumb_developer INTERFACE
    "$<$<COMPILE_LANG_AND_ID:CXX,GNU,Clang,AppleClang>:-Werror>"
    "$<$<COMPILE_LANG_AND_ID:CUDA,NVIDIA>:--Werror=all-warnings>")
endif()
if(KVCRUMB_SANITIZE)
  set(kvcrumb_sanitize_options "-fsanitize=${KVCRUMB_SANITIZE}" -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_compile_options(kvcrumb_developer INTERFACE "$<$<COMPILE_LANGUAGE:CXX>:${kvcrumb_sanitize_options}>")
  target_link_options(kvcrumb_developer INTERFACE ${kvcrumb_sanitize_options})
endif()

# CUDA: AUTO takes a compiler that works and is recent enough, ON insists, OFF does not look.
set(KVCRUMB_HAVE_CUDA OFF)
if(NOT KVCRUMB_CUDA STREQUAL "OFF")
  include(CheckLanguage)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 90a)
  endif()
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    if(CMAKE_CUDA_COMPILER_ID STREQUAL "NVIDIA" AND CMAKE_CUDA_COMPILER_VERSION VERSION_LESS 12.0)
      if(NOT KVCRUMB_CUDA STREQUAL "AUTO")
        message(FATAL_ERROR "kvcrumb: nvcc ${CMAKE_CUDA_COMPILER_VERSION} has no C++20; 12.0 or later is needed")
      endif()
    else()
      set(KVCRUMB_HAVE_CUDA ON)
    endif()
  elseif(NOT KVCRUMB_CUDA STREQUAL "AUTO")
    message(FATAL_ERROR "kvcrumb: KVCRUMB_CUDA=${KVCRUMB_CUDA}, but no working CUDA compiler was found")
  endif()
endif()
message(STATUS "kvcrumb: CUDA compiler in use: ${KVCRUMB_HAVE_CUDA}")

# kvcrumb_fetch(name repository commit package): the fall-back for a developer dependency that is not installed.
macro(kvcrumb_fetch name repository commit package)
  if(NOT KVCRUMB_FETCH_DEPENDENCIES)
    message(FATAL_ERROR "kvcrumb: ${name} was not found. Install it (Debian: ${package}) or configure with "
                        "-DKVCRUMB_FETCH_DEPENDENCIES=ON to download a pinned copy.")
  endif()
  include(FetchContent)
  FetchContent_Declare(${name} GIT_REPOSITORY ${repository} GIT_TAG ${commit})
  FetchContent_MakeAvailable(${name})
endmacro()

# Catch2 3 or 2.13; tests include it only through tests/support/catch.hpp.
macro(kvcrumb_find_catch2)
  find_package(Catch2 3 CONFIG QUIET)
  if(NOT Catch2_FOUND)
    find_package(Catch2 2.13 CONFIG QUIET)
  endif()
  if(NOT Catch2_FOUND)
    # 3.7.1
    kvcrumb_fetch(Catch2 https://github.com/catchorg/Catch2.git fa43b77429ba76c462b1898d6cd2f2d7a9416b14 catch2)
  endif()
endmacro()

macro(kvcrumb_find_benchmark)
  find_package(benchmark CONFIG QUIET)
  if(NOT benchmark_FOUND)
    set(BENCHMARK_ENABLE_TESTING OFF)
    set(BENCHMARK_ENABLE_INSTALL OFF)
    # 1.9.4
    kvcrumb_fetch(benchmark https://github.com/google/benchmark.git eddb0241389718a23a42db6af5f0164b6e0139af
                  libbenchmark-dev)
  endif()
endmacro()

# Formatting with the version that .clang-format is written for.
find_program(KVCRUMB_CLANG_FORMAT NAMES clang-format-14)
if(KVCRUMB_CLANG_FORMAT AND PROJECT_IS_TOP_LEVEL)
  set(kvcrumb_format_command find include tests bench examples -regex ".*\\.\\(hpp\\|cuh\\|cpp\\|cu\\)$" -print0)
  add_custom_target(format
    COMMAND ${kvcrumb_format_command} | xargs -0 "${KVCRUMB_CLANG_FORMAT}" -i
    WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}" VERBATIM)
  add_custom_target(format_check
    COMMAND ${kvcrumb_format_command} | xargs -0 "${KVCRUMB_CLANG_FORMAT}" --dry-run -Werror
    WORKING_DIRECTORY "${PROJECT_SOURCE_DIR}" VERBATIM)
endif()
