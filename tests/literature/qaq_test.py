#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""QAQ's criterion and codec (arXiv 2403.04643 and the formulas of its published code) computed with NumPy, against the
numbers in tests/unit/schemes/qaq_test.cpp. `--print` prints them.

criterion  key:   e = sqrt(12 / |q| * ln(n^3 / (n - 1) * target^2 + 1))
           value: e = sqrt(12 / n) * target / a
           bits = clamp(ceil(log2(range / (2 e) + 1)), 1, 8)
codec      outliers: the k lowest and k highest of a row; of the others scale = (max - min) / 2^b,
           q = clamp(rint((x - mean) / scale), -2^(b-1), 2^(b-1) - 1), x_hat = q scale + mean; mean fp16 (nearest) and
           scale fp16 (up) as kvcrumb stores them, float32 steps
"""
import os
import pathlib
import re
import sys

import numpy as np

# side, range, n, target, |q| or a
CASES = [("key", 8.0, 1024, 1.0, 300.0), ("key", 8.0, 1024, 0.001, 300.0), ("key", 20.0, 64, 0.001, 300.0),
         ("key", 20.0, 64, 0.0001, 300.0), ("key", 2.5, 4096, 0.0003, 90000.0), ("key", 100.0, 2, 0.01, 1.0),
         ("value", 3.0, 1024, 0.1, 0.5), ("value", 3.0, 1024, 0.1, 0.01), ("value", 12.0, 100, 0.05, 1.0),
         ("value", 12.0, 100, 0.0125, 1.0), ("value", 0.5, 16, 1.0, 0.25), ("value", 40.0, 32768, 0.3, 0.9)]  # fmt: skip
WIDTH = 32


def criterion():
    rows = []
    for side, spread, n, target, x in CASES:
        if side == "key":
            error = np.sqrt(12.0 / x * np.log(float(n) ** 3 / (n - 1) * target**2 + 1.0))
        else:
            error = np.sqrt(12.0 / n) * target / x
        bits = int(np.clip(np.ceil(np.log2(spread / (2 * error) + 1)), 1, 8))
        rows.append((spread, n, target, x, error, bits))
    return np.array(rows)


def codec(bits, outliers):
    row = (((np.arange(WIDTH) * 37 + 11) % 64) - 20).astype(np.float32) / 16
    row[5], row[17] = 9.0, -7.5
    order = np.argsort(row, kind="stable")
    kept = np.sort(order[outliers : WIDTH - outliers])
    values = row[kept]
    mean = np.float32(np.float16(values.mean(dtype=np.float64)))
    exact = (values.max() - values.min()) / np.float32(2**bits)
    scale = np.float16(exact)
    if np.float32(scale) < exact:
        scale = np.nextafter(scale, np.float16(np.inf))
    scale = np.float32(scale)
    q = np.clip(np.rint((values - mean) / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(np.float32)
    decoded = row.copy()
    decoded[kept] = q * scale + mean
    return decoded


def tables():
    return {"criterion": criterion(), "codec2": codec(2, 0), "codec3": codec(3, 1), "codec4": codec(4, 2)}


def main():
    expected = tables()
    if "--print" in sys.argv:
        for name, table in expected.items():
            print(name, ", ".join(repr(float(x)) for x in table.ravel()))
        return 0
    root = pathlib.Path(os.environ.get("KVCRUMB_SOURCE_DIR", pathlib.Path(__file__).parents[2]))
    text = (root / "tests/unit/schemes/qaq_test.cpp").read_text()
    for name, table in expected.items():
        recorded = re.search(r"std::vector<double> const " + name + r"\{([^}]*)\}", text).group(1)
        recorded = np.array([float(x) for x in recorded.split(",")])
        assert recorded.size == table.size, name
        assert np.allclose(recorded, table.ravel(), rtol=1e-12, atol=0), name
    print("recorded numbers agree")
    return 0


if __name__ == "__main__":
    sys.exit(main())
