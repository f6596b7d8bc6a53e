#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The singular value decomposition of a reshaped block, by NumPy: the factors of DecoQuant (arXiv 2405.12591).

The numbers recorded in tests/unit/schemes/decoquant_test.cpp must be these. Shares nothing with the C++ code but the
generator of the rows.
"""
import os
import pathlib
import re
import sys

import numpy as np

TOKENS, HEAD_DIM, WIDTH = 32, 64, 8


def numbers(seed, count):
    values = []
    for _ in range(count):
        seed = (seed * 1103515245 + 12345) % 2**31
        values.append((seed >> 16 & 0x7FFF) / 16384 - 1)
    return np.array(values)


rows = numbers(3, TOKENS * HEAD_DIM).reshape(TOKENS, HEAD_DIM)
rows = rows * (1 + np.arange(HEAD_DIM) % 8) + (np.arange(HEAD_DIM) % 8 == 5) * 3
matrix = rows.reshape(-1, WIDTH)
_, values, vectors = np.linalg.svd(matrix / np.sqrt(len(matrix)), full_matrices=False)
for j in range(WIDTH):  # the largest component is positive
    vectors[j] *= np.sign(vectors[j][np.argmax(np.abs(vectors[j]))])
factor = values[:, None] * vectors

test = pathlib.Path(os.environ["KVCRUMB_SOURCE_DIR"]) / "tests/unit/schemes/decoquant_test.cpp"
text = test.read_text()


def recorded(name):
    found = re.search(name + r"\[\d+\] = \{(.*?)\}", text, re.S)
    return np.array([float(x) for x in re.findall(r"[-+.\de]+", found.group(1))])


for name, expected in (("recorded_values", values), ("recorded_factor", factor.ravel())):
    have = recorded(name)
    if have.shape != expected.shape or np.max(np.abs(have - expected)) > 1e-12:
        print(name, ", ".join(f"{x:.15g}" for x in expected))
        sys.exit(f"{name} is not NumPy's")
print("DecoQuant's factors are those of the C++ test")
