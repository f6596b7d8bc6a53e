// SPDX-License-Identifier: Apache-2.0
//! @file Deliberately empty: its target owns the precompiled support/catch.hpp that all test programs reuse.
