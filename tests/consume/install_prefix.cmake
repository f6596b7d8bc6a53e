# SPDX-License-Identifier: Apache-2.0
# Installs the build tree BINARY_DIR into an emptied PREFIX.
file(REMOVE_RECURSE "${PREFIX}")
execute_process(COMMAND "${CMAKE_COMMAND}" --install "${BINARY_DIR}" --prefix "${PREFIX}" --component kvcrumb
                COMMAND_ERROR_IS_FATAL ANY)
