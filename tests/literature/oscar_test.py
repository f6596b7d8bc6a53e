#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""OScaR (arXiv 2605.19660) written down in NumPy doubles: rotation, token norm over all heads, affine codes with a
rounded zero point. Its results stand in tests/unit/schemes/oscar_test.cpp; this checks that they do."""
from mixed_numbers import compare, half, hadamard, mixed, np, relative_error

HEADS, TOKENS, DIM, GROUP = 2, 32, 64, 32

x = mixed(7, HEADS, TOKENS, DIM)
x[:, :, 5] += 30
x[:, :, 23] -= 24
x[:, 1::8, :] *= 0.1
x = half(x)
H = hadamard(DIM)


def two_bits(y, axis):
    """Along groups of 32 of an axis: scale and zero point, codes, and back."""
    low, high = y.min(axis=axis, keepdims=True), y.max(axis=axis, keepdims=True)
    scale = half((high - low) / 3)
    zero = np.round(-low * 3 / (high - low))
    return (np.clip(np.round(y / scale + zero), 0, 3) - zero) * scale


rotated = x @ H
norms = np.sqrt((rotated**2).sum(axis=(0, 2)))
stored = half(norms)
keys = two_bits(rotated / stored[None, :, None], axis=1) * stored[None, :, None] @ H
values = two_bits(rotated.reshape(HEADS, TOKENS, DIM // GROUP, GROUP), axis=3).reshape(x.shape) @ H
compare("oscar_test.cpp", {
    "recorded_norms": norms[:4], "recorded_key_error": relative_error(x, keys),
    "recorded_value_error": relative_error(x, values), "recorded_row": keys[1, 9, :8]})  # fmt: skip
