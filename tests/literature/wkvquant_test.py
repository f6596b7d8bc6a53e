#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Two-dimensional quantization (WKVQuant, arXiv 2402.12065) of a small tensor in NumPy, sharing nothing with the C++
code: static middle and half range per channel, then 4-bit groups of one token with an fp16 minimum (rounded down) and
an fp16 scale (rounded up). Checks the lines recorded in tests/unit/schemes/wkvquant_test.cpp.
"""
import pathlib
import re
import sys

import numpy as np


def fp16_towards(x, up):
    """The nearest fp16 not below (up) or not above x."""
    y = np.float16(x)
    if up and np.float32(y) < np.float32(x):
        y = np.nextafter(y, np.float16(np.inf))
    if not up and np.float32(y) > np.float32(x):
        y = np.nextafter(y, np.float16(-np.inf))
    return y


def lines():
    t, d = np.indices((4, 8))
    x = (((37 * t + 11 * d) % 23 - 11) * (t + 1) / 16 + np.where(d % 5 == 0, 4.0, 0.0)).astype(np.float32)
    low, high = x.min(axis=0), x.max(axis=0)
    z = (x - (high + low) / np.float32(2)) / ((high - low) / np.float32(2))
    for row in z:
        minimum = fp16_towards(row.min(), up=False)
        scale = fp16_towards((row.max() - np.float32(minimum)) / np.float32(15), up=True)
        codes = np.clip(np.rint((row - np.float32(minimum)) / np.float32(scale)), 0, 15).astype(int)
        yield "".join(f"{c:x}" for c in codes) + f" {scale.view(np.uint16):04x} {minimum.view(np.uint16):04x}"


def main():
    source = pathlib.Path(__file__).parent.parent / "unit/schemes/wkvquant_test.cpp"
    recorded = re.findall(r'^ +"([0-9a-f]{8} [0-9a-f]{4} [0-9a-f]{4})",?', source.read_text(), re.MULTILINE)
    computed = list(lines())
    if recorded != computed:
        print("recorded:", *recorded, "computed:", *computed, sep="\n  ")
        return 1
    print(f"{len(computed)} lines agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
