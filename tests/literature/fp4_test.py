#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""NVFP4 by its definition (flashinfer's fp4 KV cache): E2M1 values, an e4m3 scale per 16, a float32 scale per tensor.

The numbers recorded in tests/unit/schemes/fp4_test.cpp must be these. Shares nothing with the C++ code but the
generator of the rows: both formats are lists of values here, searched for the nearest.
"""
import os
import pathlib
import re
import sys

import numpy as np

f32 = np.float32
E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
E4M3 = [m / 8 * 2.0**-6 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7) for e in range(16) for m in range(8)][:127]


def nearest(values, x):
    """Index of the value nearest to x >= 0; ties to the even index, which has the even mantissa."""
    return min(range(len(values)), key=lambda i: (abs(values[i] - float(x)), i % 2))


def numbers(seed, count):
    values = []
    for _ in range(count):
        seed = (seed * 1103515245 + 12345) % 2**31
        values.append((seed >> 16 & 0x7FFF) / 16384 - 1)
    return np.array(values, dtype=f32)


def through(x, scale_of, global_decode):
    decoded = []
    for begin in range(0, len(x), 16):
        group = x[begin : begin + 16]
        scale = f32(E4M3[nearest(E4M3, scale_of(np.max(np.abs(group)) / f32(6)))])
        unit = scale * global_decode
        for v in group:
            level = f32(E2M1[nearest(E2M1, abs(v) / unit if unit > 0 else 0)])
            decoded.append(np.copysign(level * unit, v))
    return np.array(decoded, dtype=f32)


x = numbers(9, 64)
x[16:32] *= f32(1 / 64)
x[32:48] *= f32(20)
x[48:] = f32(0)
absmax = np.max(np.abs(x))
small = absmax / f32(448)  # multiplied when decoding
large = f32(448) / absmax  # multiplied when encoding
results = {"recorded_decode": through(x, lambda s: s / small, small),
           "recorded_encode": through(x, lambda s: s * large, f32(1) / large)}  # fmt: skip

text = (pathlib.Path(os.environ["KVCRUMB_SOURCE_DIR"]) / "tests/unit/schemes/fp4_test.cpp").read_text()
for name, expected in results.items():
    found = re.search(name + r"\[\d+\] = \{(.*?)\}", text, re.S)
    have = np.array([float(v) for v in re.findall(r"[-+]?\d[\d.]*(?:e[-+]?\d+)?", found.group(1))], dtype=f32)
    if have.shape != expected.shape or not np.array_equal(have, expected):
        print(name, ", ".join(f"{float(v):.9g}f" if "." in f"{float(v):.9g}" or "e" in f"{float(v):.9g}"
                              else f"{float(v):.1f}f" for v in expected))  # fmt: skip
        sys.exit(f"{name} is not NumPy's")
print("NVFP4's values are those of the C++ test")
