# SPDX-License-Identifier: Apache-2.0
"""Numbers that tests/unit/schemes/tile_scheme_checks.hpp makes too, and what a C++ test has recorded of a computation."""
import os
import pathlib
import re
import sys

try:
    import numpy as np
except ImportError:
    print("NOT TESTED: this Python has no NumPy (Debian: python3-numpy)")
    sys.exit(77)


def mixed(seed, heads, tokens, dims):
    """[heads][tokens][dims] numbers in [-4, 4)."""
    h, t, d = np.meshgrid(np.arange(heads), np.arange(tokens), np.arange(dims), indexing="ij")
    m = np.uint64(0xFFFFFFFF)
    u = (seed * 2654435761 + h * 40503 + t * 2246822519 + d * 3266489917).astype(np.uint64) & m
    u = ((u ^ (u >> np.uint64(15))) * np.uint64(2246822519)) & m
    u = ((u ^ (u >> np.uint64(13))) * np.uint64(3266489917)) & m
    u = u ^ (u >> np.uint64(16))
    return ((u & np.uint64(0xFFFF)).astype(float) + (u >> np.uint64(16)).astype(float) - 65535) / 16384


def half(x):
    """Rounded to fp16, as doubles."""
    return np.asarray(x).astype(np.float16).astype(float)


def hadamard(n):
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    return h / np.sqrt(n)


def relative_error(x, got):
    return float(np.sqrt(((x - got) ** 2).sum() / (x**2).sum()))


def compare(test, computed, tolerance=1e-6):
    """Exit status 0 if the numbers recorded in a C++ test are those computed here. --print shows the C++ lines."""
    if "--print" in sys.argv:
        for name, value in computed.items():
            if np.ndim(value) > 0:
                print(f"constexpr double {name}[] = {{{', '.join(f'{x:.9g}' for x in np.ravel(value))}}};")
            else:
                print(f"constexpr double {name} = {value:.9g};")
        sys.exit(0)
    root = os.environ.get("KVCRUMB_SOURCE_DIR") or pathlib.Path(__file__).parents[2]
    text = (pathlib.Path(root) / "tests/unit/schemes" / test).read_text(encoding="utf-8")
    bad = 0
    for name, value in computed.items():
        found = re.search(rf"\b{name}(?:\[\])? =\s*([^;]*);", text)
        if not found:
            print(f"{test} has no {name}")
            bad += 1
            continue
        recorded = [float(x) for x in found[1].strip("{} \n").replace("\n", " ").split(",")]
        wanted = np.ravel(value)
        if len(recorded) != len(wanted) or np.abs(np.array(recorded) - wanted).max() > tolerance * (1 + np.abs(wanted).max()):
            print(f"{name}: {test} has {recorded}, computed {list(wanted)}")
            bad += 1
    print(f"{len(computed) - bad} of {len(computed)} recorded results agree")
    sys.exit(1 if bad else 0)
