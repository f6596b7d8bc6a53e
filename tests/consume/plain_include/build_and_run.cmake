# SPDX-License-Identifier: Apache-2.0
# Plain -I, no build system; also proves that the library needs neither exceptions nor RTTI.
# Gets COMPILER, INCLUDE_DIR, SOURCE, OUTPUT.
execute_process(
  COMMAND "${COMPILER}" -std=c++20 -fno-exceptions -fno-rtti -Wall -Wextra -Wpedantic -Wconversion -Wshadow -Werror
          "-I${INCLUDE_DIR}" "${SOURCE}" -o "${OUTPUT}"
  COMMAND_ERROR_IS_FATAL ANY)
execute_process(COMMAND "${OUTPUT}" COMMAND_ERROR_IS_FATAL ANY)
