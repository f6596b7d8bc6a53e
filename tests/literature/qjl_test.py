#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Projections of QJL against NumPy: the numbers in tests/unit/schemes/qjl_test.cpp are the Q factor of a Gaussian.

Draws the same normals (Marsaglia's polar method on SplitMix64) with the C library's logarithm, orthogonalizes them with
LAPACK, and compares with the arrays `q` and `n` in the C++ test. With --print it prints them instead.
"""
import math
import pathlib
import re
import sys

try:
    import numpy
except ImportError:
    print("skipped: NumPy is not installed")
    sys.exit(77)

MASK = (1 << 64) - 1


def normals(seed):
    state = seed

    def uniform():
        nonlocal state
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return ((z ^ (z >> 31)) >> 11) * 2.0**-52 - 1.0

    while True:
        u, v = uniform(), uniform()
        s = u * u + v * v
        if 0.0 < s < 1.0:
            factor = math.sqrt(-2.0 * math.log(s) / s)
            yield u * factor
            yield v * factor


def main():
    source = normals(42)
    gaussian = numpy.array([next(source) for _ in range(16)]).reshape(4, 4)
    q, r = numpy.linalg.qr(gaussian.T)  # columns of q span the rows of the matrix, one after the other
    rows = (q * numpy.sign(numpy.diag(r))).T * 2.0  # sqrt(4)
    if "--print" in sys.argv:
        print(", ".join(f"{x:.9f}" for x in rows.ravel()))
        print(", ".join(f"{x:.9f}" for x in gaussian[0]))
        return 0
    test = pathlib.Path(__file__).parents[1] / "unit/schemes/qjl_test.cpp"
    text = test.read_text(encoding="utf-8")
    for name, expected in (("q", rows.ravel()), ("n", gaussian[0])):
        found = re.search(r"double const %s\[\d+\] = \{([^}]*)\}" % name, text)
        if not found:
            print(f"{test.name} has no array {name}")
            return 1
        recorded = numpy.array([float(x) for x in found[1].split(",")])
        if recorded.shape != expected.shape or numpy.abs(recorded - expected).max() > 1e-8:
            print(f"array {name} of {test.name} is not what NumPy computes: {expected}")
            return 1
    print("the recorded projection is NumPy's")
    return 0


if __name__ == "__main__":
    sys.exit(main())
