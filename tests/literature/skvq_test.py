#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""SKVQ (arXiv 2405.06219) computed a second time with NumPy, from the published rule and from the text of
include/kvcrumb/schemes/skvq.hpp about bytes; it shares nothing with the C++ code.

Its CRC-32s of whole sections are what tests/unit/schemes/skvq_test.cpp (`recorded`) requires of the library; this script
computes them again and compares. Environment: KVCRUMB_SOURCE_DIR. Exit status 0: agrees, 1: differs, 77: not tested.
"""
import os
import pathlib
import re
import sys
import zlib

try:
    import numpy as np
except ImportError:
    print("NOT TESTED: this Python has no NumPy (Debian: python3-numpy)")
    sys.exit(77)

HEADS, TOKENS, WIDTH = 2, 32, 40
ENDS = [[9, 22, 40], [5, 30, 40]]
CLIPS = [[1.0, 0.75, 0.5], [0.875, 0.625, 1.0]]
ORDER = [[(7 * p + 3) % WIDTH for p in range(WIDTH)], [(11 * p + 5) % WIDTH for p in range(WIDTH)]]

# Values of E4M3 by its definition: 4 exponent bits with bias 7, 3 mantissa bits, pattern 0x7F is NaN.
E4M3 = np.array([m / 8 * 2.0**-6 if e == 0 else (1 + m / 8) * 2.0 ** (e - 7) for e in range(16) for m in range(8)][:127])


def rows():
    """[head][token][dim] of a linear congruential generator; every value is exact in binary32."""
    state, out = 12345, []
    for _ in range(HEADS * TOKENS):
        for d in range(WIDTH):
            state = (state * 1664525 + 1013904223) % 2**32
            out.append(((state >> 16) - 32768) / 8192 * 2 ** (d % 4) + (4.5 if d % 8 == 1 else 0.0))
    return np.array(out, np.float32).reshape(HEADS, TOKENS, WIDTH)


def e4m3(x):
    """Pattern of the nearest value, ties to the even pattern, saturating."""
    distance = np.abs(E4M3 - abs(float(x)))
    nearest = np.flatnonzero(distance == distance.min())
    pattern = int(nearest[0] if len(nearest) == 1 or nearest[0] % 2 == 0 else nearest[1])
    return pattern | (0x80 if np.signbit(x) else 0)


def value(pattern):
    return np.float32(E4M3[pattern & 0x7F] * (-1 if pattern & 0x80 else 1))


def section(x, head, levels, stored):
    """(bytes, x_hat by channel) of one head: ends, codes, parameters."""
    codes, parameters = [], bytearray()
    back = np.zeros((TOKENS, WIDTH))
    for t in range(TOKENS):
        begin = 0
        for end, clip in zip(ENDS[head], CLIPS[head]):
            channels = ORDER[head][begin:end]
            group = x[head, t, channels]
            low, high = group.min() * np.float32(clip), group.max() * np.float32(clip)
            scale = max((high - low) / np.float32(levels), np.float32(1e-5))
            patterns = e4m3(scale), e4m3(low)
            parameters += bytes(patterns)
            s, m = value(patterns[0]), value(patterns[1])
            quotient = (group - m) / s if stored else (group - low) / scale
            q = np.rint(np.clip(quotient, 0, levels))
            codes += [int(c) for c in q]
            back[t, channels] = s * q.astype(np.float32) + m
            begin = end
    if levels == 2:
        packed = [sum(c * 3**i for i, c in enumerate(codes[k : k + 5])) for k in range(0, len(codes), 5)]
    else:
        packed = [sum(c << 2 * i for i, c in enumerate(codes[k : k + 4])) for k in range(0, len(codes), 4)]
    ends = b"".join(e.to_bytes(2, "little") for e in ENDS[head][:-1])
    return ends + bytes(packed) + bytes(parameters), back


def main():
    x = rows()
    figures = []
    for levels in (3, 2):
        for stored in (True, False):
            errors = []
            for head in range(HEADS):
                content, back = section(x, head, levels, stored)
                figures.append(zlib.crc32(content))
                errors.append(((back - x[head]) ** 2).sum() / (x[head].astype(float) ** 2).sum())
            print(f"levels {levels} {'stored' if stored else 'unrounded'}: crc {figures[-2]:#010x} {figures[-1]:#010x},",
                  f"{len(content)} bytes, squared error {errors[0]:.6f} {errors[1]:.6f}")
    source = os.environ.get("KVCRUMB_SOURCE_DIR", pathlib.Path(__file__).parents[2])
    text = (pathlib.Path(source) / "tests/unit/schemes/skvq_test.cpp").read_text(encoding="utf-8")
    block = re.search(r"recorded\[\] = \{(.*?)\};", text, re.DOTALL)
    recorded = [int(n, 16) for n in re.findall(r"0x[0-9A-Fa-f]+", block[1])] if block else []
    if recorded != figures:
        sys.exit(f"skvq_test.cpp has {[hex(n) for n in recorded]}")


if __name__ == "__main__":
    main()
