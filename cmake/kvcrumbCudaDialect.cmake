# SPDX-License-Identifier: Apache-2.0
# C++20 for nvcc. CMake 3.25 does not know the feature `cuda_std_20`, silently drops CMAKE_CUDA_STANDARD=20, and does not
# apply `cxx_std_20` to CUDA sources; a plain compile option that only CUDA sources see does work. Repeating -std=c++20
# is silent, so this stays harmless where a later CMake sets the standard itself.
function(kvcrumb_require_cuda_dialect target)
  target_compile_options(${target} INTERFACE "$<$<COMPILE_LANG_AND_ID:CUDA,NVIDIA,Clang>:-std=c++20>")
endfunction()
