// SPDX-License-Identifier: Apache-2.0
//! @file Operations of the encoder of the target portable. Included once by targets.hpp.

struct encode_ops : plain_encode_ops {};
