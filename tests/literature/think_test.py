#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The channels that ThinK keeps, from its definition: the Frobenius norm of the outer product of one channel of the
queries and of the keys (arXiv 2407.21018, section 3.2), squared and averaged over the query heads of a kv head.

The numbers recorded in tests/unit/schemes/think_test.cpp must be these. Shares nothing with the C++ code but the
generator of the rows.
"""
import os
import pathlib
import re
import sys

import numpy as np

QUERY_HEADS, KV_HEADS, QUERIES, TOKENS, WIDTH, KEPT = 4, 2, 40, 48, 24, 16


def numbers(seed, count):
    values = []
    for _ in range(count):
        seed = (seed * 1103515245 + 12345) % 2**31
        values.append((seed >> 16 & 0x7FFF) / 16384 - 1)
    return np.array(values)


q = numbers(1, QUERY_HEADS * QUERIES * WIDTH).reshape(QUERY_HEADS, QUERIES, WIDTH)
k = numbers(2, KV_HEADS * TOKENS * WIDTH).reshape(KV_HEADS, TOKENS, WIDTH)
q = q * (1 + np.arange(WIDTH) % 5)
k = k * (1 + np.arange(WIDTH) % 7)
q[:, :8] *= 64  # outside the last 32 queries: must not count
q[:, :8, 3] *= 64

kept = []
for head in range(KV_HEADS):
    scores = []
    for j in range(WIDTH):
        norms = [np.linalg.norm(np.outer(q[i, -32:, j], k[head, :, j])) for i in (2 * head, 2 * head + 1)]
        scores.append(np.mean(np.square(norms)))
    kept.append(sorted(np.argsort(scores)[WIDTH - KEPT:].tolist()))

test = pathlib.Path(os.environ["KVCRUMB_SOURCE_DIR"]) / "tests/unit/schemes/think_test.cpp"
found = re.search(r"recorded_channels\[\d+\] = \{(.*?)\}", test.read_text(), re.S)
recorded = [int(x) for x in re.findall(r"\d+", found.group(1))]
if recorded != kept[0] + kept[1]:
    sys.exit(f"recorded {recorded}\nNumPy    {kept[0] + kept[1]}")
print("ThinK's channels are those of the C++ test")
