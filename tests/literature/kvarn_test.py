#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""KVarN (arXiv 2606.03458) written down in NumPy doubles as published: logarithms of the factors, codes of the balanced
tile, scales multiplied together afterwards. Its results stand in tests/unit/schemes/kvarn_test.cpp; this checks that
they do."""
from mixed_numbers import compare, half, hadamard, mixed, np, relative_error

TOKENS, DIM = 32, 64

H = hadamard(DIM)
rotated = mixed(3, 1, TOKENS, DIM)[0]
rotated[:, 3::16] *= 10
rotated[5::16, :] *= 8
x = half(rotated @ H)


def balance(tile, iterations=16):
    """Factors of the second axis, then of the first, of a matrix."""
    log_second, log_first = np.zeros((1, tile.shape[1])), np.zeros((tile.shape[0], 1))

    def scaled():
        return tile / np.exp(log_second) / np.exp(log_first)

    def imbalance():
        return sum(s.max() / max(s.min(), 1e-8) for s in (scaled().std(axis=a, ddof=1) for a in (0, 1)))

    best = imbalance(), np.exp(log_second), np.exp(log_first)
    for _ in range(iterations):
        step = np.log(np.clip(scaled().std(axis=0, ddof=1, keepdims=True), 1e-3, 1e3))
        log_second = np.clip(log_second + step, -0.3, 10)
        step = np.log(np.clip(scaled().std(axis=1, ddof=1, keepdims=True), 1e-3, 1e3))
        log_first = np.clip(log_first + step, -0.3, 10)
        if imbalance() <= best[0]:
            best = imbalance(), np.exp(log_second), np.exp(log_first)
    return best[1], best[2]


def encode(tile, bits):
    """Codes along the second axis of a matrix, and back; also the factors."""
    second, first = balance(tile)
    y = tile / second / first
    low, high = y.min(axis=1, keepdims=True), y.max(axis=1, keepdims=True)
    scale = np.maximum((high - low) / (2**bits - 1), 1e-10)
    code = np.clip(np.round((y - low) / scale), 0, 2**bits - 1)
    return (code * half(first * scale) + half(first * low)) * half(second), second.ravel()


y = x @ H
keys, tokens = encode(y.T, 4)
values, channels = encode(y, 2)
keys, values = keys.T @ H, values @ H
compare("kvarn_test.cpp", {
    "recorded_token_factors": tokens[:8], "recorded_channel_factors": channels[:8],
    "recorded_key_error": relative_error(x, keys), "recorded_value_error": relative_error(x, values),
    "recorded_key_row": keys[9, :8], "recorded_value_row": values[9, :8]})  # fmt: skip
