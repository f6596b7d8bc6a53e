#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""SnapKV's importance (arXiv 2404.14469) computed with NumPy, against tests/unit/cache/pruned_cache_test.cpp.

softmax over the keys in sight, sum over the observation window, mean over the query heads of a kv head, pooling with
stride 1 over the tokens before the recent ones (largest: padding -inf; mean: padding 0, divided by the kernel, as
avg_pool1d does by default). `--print` prints the numbers.
"""
import os
import pathlib
import re
import sys

import numpy as np

HEADS, KV_HEADS, QUERIES, TOKENS, RECENT, KERNEL = 4, 2, 3, 8, 2, 3


def numbers():
    h, q, t = np.meshgrid(range(HEADS), range(QUERIES), range(TOKENS), indexing="ij")
    logits = np.where(t > q + 5, -np.inf, ((7 * h + 5 * q + 3 * t) % 11) / 4.0)
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    grouped = weights.reshape(KV_HEADS, HEADS // KV_HEADS, QUERIES, TOKENS)
    total = grouped.sum(2).mean(1)
    old = total[:, : TOKENS - RECENT]
    largest, mean = total.copy(), total.copy()
    for kv in range(KV_HEADS):
        for fill, pool, out in ((-np.inf, np.max, largest), (0.0, np.mean, mean)):
            padded = np.pad(old[kv], KERNEL // 2, constant_values=fill)
            out[kv, : TOKENS - RECENT] = [pool(padded[i : i + KERNEL]) for i in range(TOKENS - RECENT)]
    return {"sum": total, "largest": largest, "mean": mean, "most": grouped.max((1, 2))}


def main():
    expected = numbers()
    if "--print" in sys.argv:
        for name, table in expected.items():
            print(name, ", ".join(f"{x:.8f}" for x in table.ravel()))
        return 0
    root = pathlib.Path(os.environ.get("KVCRUMB_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
    text = (root / "tests/unit/cache/pruned_cache_test.cpp").read_text()
    for name, table in expected.items():
        recorded = re.search(r"std::vector<double> const " + name + r"\{([^}]*)\}", text).group(1)
        recorded = np.array([float(x) for x in recorded.split(",")])
        assert recorded.shape == (KV_HEADS * TOKENS,), name
        assert np.abs(recorded - table.ravel()).max() < 1e-7, name
    print("recorded numbers agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
