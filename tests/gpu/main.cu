// SPDX-License-Identifier: Apache-2.0
//! @file main() of gpu_tests: Catch2, or exit status 77 where there is no device.
#define CATCH_CONFIG_RUNNER
#include "support/catch.hpp"
#if __has_include(<catch2/catch_session.hpp>)
#include <catch2/catch_session.hpp>
#endif
#include <cstdio>

#include <cuda_runtime.h>

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);  // what was said before a time limit ended this is kept
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::printf("skipped: no device\n");
    return 77;
  }
  return Catch::Session().run(argc, argv) == 0 ? 0 : 1;  // the number of failures could be 77
}
