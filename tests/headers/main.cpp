// SPDX-License-Identifier: Apache-2.0
//! @file The program of the header tests: that it links is the test.
int main() {}
