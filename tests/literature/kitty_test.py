#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Kitty (arXiv 2511.18643) written down in NumPy: pages of tokens, the channels of largest mean |k| with 4 bits and the
others with 2, rounding half up, values 2 bits per token. Its results stand in tests/unit/schemes/kitty_test.cpp; this
checks that they do."""
from mixed_numbers import compare, half, mixed, np, relative_error

HEADS, TOKENS, DIM, PAGE, BOOSTED = 2, 64, 64, 32, 8

x = mixed(9, HEADS, TOKENS, DIM)
x[:, :, 6::16] *= 6
x[:, :, 11] += 5
x[:, 40:, 20] *= 9
x = half(x)


def two_way(y, bits, axis):
    low, high = y.min(axis=axis, keepdims=True), y.max(axis=axis, keepdims=True)
    scale = half(np.maximum((high - low) / (2**bits - 1), 1e-6))
    return np.clip(np.floor((y - half(low)) / scale + 0.5), 0, 2**bits - 1) * scale + half(low)


keys = np.empty_like(x)
lists = []
for head in range(HEADS):
    for first in range(0, TOKENS, PAGE):
        page = x[head, first:first + PAGE]
        chosen = np.sort(np.argsort(-np.abs(page).mean(axis=0), kind="stable")[:BOOSTED])
        lists.append(chosen)
        got = two_way(page, 2, 0)
        got[:, chosen] = two_way(page, 4, 0)[:, chosen]
        keys[head, first:first + PAGE] = got
values = two_way(x, 2, 2)
compare("kitty_test.cpp", {
    "recorded_channels": np.array(lists), "recorded_key_error": relative_error(x, keys),
    "recorded_value_error": relative_error(x, values), "recorded_key_row": keys[1, 45, :24:2],
    "recorded_value_row": values[1, 45, :24:2]})  # fmt: skip
