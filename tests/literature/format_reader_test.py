#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""An independent reader of saved caches, written from docs/format.md alone and sharing nothing with the C++ code.

Runs write_cache ($KVCRUMB_WRITE_CACHE, or the first argument), decodes every token of every saved cache from its bytes
and compares with what the library read back: every value must be equal. Also checks the worked example, the table of
padded shapes, and that everything that must be zero is zero.
"""
import math
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import zlib

import numpy as np

HEADER = {  # name: (offset, struct format)
    "magic": (0, "8s"), "version": (8, "I"), "header_bytes": (12, "I"), "total_bytes": (16, "Q"),
    "header_crc": (24, "I"), "payload_crc": (28, "I"), "scheme_name": (32, "32s"), "key_text": (64, "128s"),
    "value_text": (192, "128s"), "isolation_text": (320, "32s"), "key_state": (352, "Q"), "value_state": (360, "Q"),
    "head_dim": (368, "i"), "tile_tokens": (372, "i"), "kv_heads": (376, "i"), "row_bytes": (380, "i"),
    "row_type": (384, "8s"), "recent": (392, "i"), "block": (396, "i"), "sink_capacity": (400, "i"),
    "pool_capacity": (404, "i"), "aux_capacity": (408, "i"), "scope": (412, "i"), "blob_bytes": (416, "q"),
    "sink_count": (424, "q"), "tile_slots": (432, "q"), "tail_count": (440, "q"), "listed_count": (448, "q"),
    "reserved": (456, "184s")}  # fmt: skip

NF4 = """-1 -0.6961928009986877 -0.5250730514526367 -0.39491748809814453 -0.28444138169288635 -0.18477343022823334
-0.09105003625154495 0 0.07958029955625534 0.16093020141124725 0.24611230194568634 0.33791524171829224
0.44070982933044434 0.5626170039176941 0.7229568362236023 1"""
LLOYD = {1: "0.7978845608", 2: "0.4527800346 1.5104176087", 3: "0.2450941773 0.7560052489 1.3439092613 2.1519457917",
         4: "0.1283950299 0.3880482939 0.6567589957 0.9423404451 1.2562311824 1.6180464059 2.0690172840 2.7325895765"}
LEVELS = {"nf4": NF4, "nf3": "-1 -0.47862916 -0.21714182 0 0.16093017 0.3379152 0.562617 1",
          "nf2": "-1 0 0.3379152 1", "e2m1": "0 0.5 1 1.5 2 3 4 6 -0 -0.5 -1 -1.5 -2 -3 -4 -6"}
LEVELS = {name: [float(x) for x in text.split()] for name, text in LEVELS.items()}
for n, text in LLOYD.items():
    up = [float(x) for x in text.split()]
    LEVELS[f"lloyd{n}"] = [-x for x in reversed(up)] + up

SINK, TILE, POOL, AUXILIARY, TAIL = range(5)


def round_up(n, to):
    return -(-n // to) * to


def e4m3(bits):
    sign = -1.0 if bits & 0x80 else 1.0
    exponent, mantissa = (bits >> 3) & 15, bits & 7
    if bits & 0x7F == 0x7F:
        return math.nan
    return sign * (mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10))


E4M3 = np.array([e4m3(b) for b in range(256)], np.float32)
SIZES = {"f32": 4, "f16": 2, "bf16": 2, "e4m3": 1}


def floats(data, kind):
    """Stored floats as binary32."""
    if kind == "f32":
        return np.frombuffer(data, "<f4")
    if kind == "f16":
        return np.frombuffer(data, "<f2").astype(np.float32)
    if kind == "bf16":
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return E4M3[np.frombuffer(data, np.uint8)]


class side_spec:
    """The seven numbers of a section and what follows from them, from a description text."""

    def __init__(self, text, which, D, T):
        codec, grouping, self.transform, self.layout = text.split()
        self.key, self.D, self.T = which == "key", D, T
        name, options = re.fullmatch(r"(\w+)\((.*)\)", codec).groups()
        self.options = options.split(",")
        self.type = next(o for o in self.options if o in SIZES)
        self.w = SIZES[self.type]
        if name == "raw":
            self.codec, self.b, self.P = "raw", 8 * self.w, 0
        elif name in ("ggml_q8_0", "ggml_q4_0"):  # named after the format, the digit before "_0" is the width
            self.codec, self.b, self.P = name, int(name[-3]), 1
        elif name in LEVELS:
            self.codec, self.b, self.P = name, len(LEVELS[name]).bit_length() - 1, 1
        else:
            self.codec, bits = re.fullmatch(r"(affine|symmetric)(\d)", name).groups()
            self.b, self.P = int(bits), 2 if self.codec == "affine" else 1
        kind, n = re.fullmatch(r"([a-z_]+)(\d+)", grouping).groups()
        self.per_channel = kind == "per_channel"
        n = int(n)
        self.G = n if self.per_channel else D if kind == "per_row" else min(n, D)
        self.owners, self.run = (D, T) if self.per_channel else (T, D)
        self.groups = -(-self.run // self.G)
        token, dim = np.meshgrid(np.arange(T), np.arange(D), indexing="ij")
        self.owner, self.along = (dim, token) if self.per_channel else (token, dim)
        self.bits = getattr(self, "bits_" + self.layout)(token, dim)  # [T][D][b]: bit positions of each code
        self.params_at = self.param_offsets()  # [P][owner][group]

    # layout linear
    def bits_linear(self, token, dim):
        row_bytes = -(-self.run * self.b // 8)
        self.code_bytes = self.owners * row_bytes
        first = self.owner * row_bytes * 8 + self.along * self.b
        return first[..., None] + np.arange(self.b)

    # layout fragment
    def deal(self):
        p_blocks, k_blocks = ((self.T, self.D) if self.key else (self.D, self.T))
        p_blocks, k_blocks = p_blocks // 16, k_blocks // 16
        fields = 4 if self.b == 3 else 16 // self.b
        p_fields = math.gcd(p_blocks, fields)
        k_fields = fields // p_fields
        return p_blocks, p_fields, k_fields, -(-k_blocks // k_fields) * (p_blocks // p_fields)

    THREE = {0: ((0, 0), (1, 0), (0, 3), (1, 3)), 1: ((0, 1), (1, 1), (0, 4), (1, 4)),  # columns: r + 2 c
             2: ((2, 0), (2, 1), (2, 3), (2, 4)), 3: ((0, 2), (2, 2), (1, 2), None)}

    def bits_fragment(self, token, dim):
        row, column = (token, dim) if self.key else (dim, token)
        p, r, g = row >> 4, (row >> 3) & 1, row & 7
        k, c, t, h = column >> 4, (column >> 3) & 1, (column >> 1) & 3, column & 1
        lane, a = 4 * g + t, r + 2 * c
        p_blocks, p_fields, k_fields, units = self.deal()
        unit = (k // k_fields) * (p_blocks // p_fields) + p // p_fields
        field = p % p_fields + p_fields * (k % k_fields)
        if self.b != 3:
            self.code_bytes = units * 512
            first = ((unit * 32 + lane) * 4 + a) * 32 + 16 * h + self.b * field
            return first[..., None] + np.arange(self.b)
        self.code_bytes = -(-3 * units // 2) * 256
        at = np.zeros(token.shape + (3,), np.int64)
        for x in np.ndindex(token.shape):
            place = self.THREE[int(field[x])][int(a[x])]
            for m in range(3):
                i, bit = (m, 15) if place is None else (place[0], 3 * place[1] + m)
                n = 3 * int(unit[x]) + i
                at[x + (m,)] = (((n // 2) * 32 + int(lane[x])) * 2 + n % 2) * 32 + 16 * int(h[x]) + bit
        return at

    # layout ggml
    def bits_ggml(self, token, dim):
        block_bytes = 2 + 4 * self.b
        self.block_bytes, self.ggml_row = block_bytes, self.D // 32 * block_bytes
        self.code_bytes = 0
        data = token * self.ggml_row + (dim // 32) * block_bytes + 2
        j = dim % 32
        first = (data + j) * 8 if self.b == 8 else (data + j % 16) * 8 + 4 * (j // 16)
        return first[..., None] + np.arange(self.b)

    def param_offsets(self):
        plane, owner, group = np.meshgrid(np.arange(self.P), np.arange(self.owners), np.arange(self.groups), indexing="ij")
        if self.layout == "ggml":
            self.section_bytes = self.T * self.ggml_row
            return owner * self.ggml_row + group * self.block_bytes
        base = round_up(self.code_bytes, self.w)
        self.section_bytes = base + self.P * self.owners * self.groups * self.w
        if self.layout == "linear":
            return base + ((plane * self.owners + owner) * self.groups + group) * self.w
        index = (owner // 32) * 32 + 8 * ((owner >> 1) & 3) + 2 * ((owner >> 3) & 3) + (owner & 1)
        return base + ((plane * self.groups + group) * self.owners + index) * self.w

    def codes(self, section):
        bits = np.unpackbits(np.frombuffer(section, np.uint8), bitorder="little")
        codes = (bits[self.bits].astype(np.int64) << np.arange(self.b)).sum(-1)
        return codes ^ 0x80 if self.layout == "ggml" and self.b == 8 else codes

    def params(self, section):
        """[P][owner][group], binary32."""
        raw = np.frombuffer(section, np.uint8)[self.params_at[..., None] + np.arange(self.w)]
        return floats(raw.astype(np.uint8).tobytes(), self.type).reshape(self.params_at.shape)

    def decode(self, section):
        """[T][D] in the basis of the transform."""
        codes = self.codes(section)
        if self.codec == "raw":
            kind = {1: np.uint8, 2: "<u2"}[self.w]
            return floats(codes.astype(kind).tobytes(), self.type).reshape(codes.shape)
        params = self.params(section)[:, self.owner, self.along // self.G]
        scale = params[0]
        if self.codec == "affine":
            unit = codes.astype(np.float32)
            if self.options[0] == "minimum":
                bias = params[1] + np.float32(0.5) * scale if self.options[1] == "floor_cell" else params[1]
            else:
                bias = -(params[1] * scale)
        else:
            if self.codec in LEVELS:
                unit = np.array(LEVELS[self.codec], np.float32)[codes]
            else:
                unit = (codes - 2 ** (self.b - 1)).astype(np.float32)
            bias = np.float32(0)
        return scale * unit + bias

    def undo(self, rows, state):
        """The original basis (docs/numerics.md)."""
        if self.transform == "identity":
            return rows
        assert self.transform == "hadamard"
        log2 = int(state).bit_length() - 1
        scale = np.float32(0.5 ** (log2 // 2)) * (np.float32(0.70710678118654752) if log2 % 2 else np.float32(1))
        x = rows.reshape(len(rows), -1, state).copy()
        h = 1
        while h < state:
            pairs = x.reshape(len(rows), -1, 2, h)
            a, b = pairs[:, :, 0].copy(), pairs[:, :, 1].copy()
            pairs[:, :, 0], pairs[:, :, 1] = a + b, a - b
            h *= 2
        return (x * scale).reshape(rows.shape)

    def used_bits(self):
        """Which bits of a section belong to a code or a parameter."""
        used = np.zeros(self.section_bytes * 8, np.int64)
        np.add.at(used, self.bits.ravel(), 1)
        np.add.at(used, (8 * self.params_at[..., None] + np.arange(8 * self.w)).ravel(), 1)
        return used


def read_cache(data):
    """(keys, values, places), [head][token][dim] and [head][token]."""
    h = {name: struct.unpack_from("<" + form, data, at)[0] for name, (at, form) in HEADER.items()}
    for name, value in h.items():
        if isinstance(value, bytes) and name not in ("magic", "reserved"):
            h[name] = value.rstrip(b"\0").decode("ascii")
    assert h["magic"] == bytes.fromhex("4B564352554D420A") and h["version"] == 1 and h["header_bytes"] == 640
    assert h["reserved"] == bytes(184) and h["total_bytes"] == len(data)
    assert zlib.crc32(data[:24] + bytes(4) + data[28:640]) == h["header_crc"], "header checksum"
    payload = data[640:]
    assert zlib.crc32(payload) == h["payload_crc"], "payload checksum"

    D, T, H, kind = h["head_dim"], h["tile_tokens"], h["kv_heads"], h["row_type"]
    assert h["row_bytes"] == SIZES[kind]
    key, value = side_spec(h["key_text"], "key", D, T), side_spec(h["value_text"], "value", D, T)
    value_at = round_up(key.section_bytes, 16)
    mask_at = round_up(value_at + value.section_bytes, 16)
    assert h["blob_bytes"] == mask_at + T // 8, "blob bytes"
    sinks, slots, tail = h["sink_count"], h["tile_slots"], h["tail_count"]
    tokens = sinks + slots + tail
    rows = {"key": np.full((H, tokens, D), np.nan, np.float32), "value": np.full((H, tokens, D), np.nan, np.float32)}
    places = np.full((H, tokens), -1)
    at = 0

    def take(count):
        nonlocal at
        at += count
        assert at <= len(payload)
        return payload[at - count : at]

    def take_rows(count):
        return floats(take(count * D * h["row_bytes"]), kind).reshape(count, D)

    counts = np.frombuffer(take(8 * H), "<i4").reshape(2, H)
    for which, place in ((0, POOL), (1, AUXILIARY)):
        for head in range(H):
            n = int(counts[which][head])
            if n == 0:
                continue
            positions = [struct.unpack("<qf", take(12))[0] for _ in range(n)]
            for side in ("key", "value"):
                rows[side][head, positions] = take_rows(n)
            assert len(set(positions)) == n and (places[head, positions] == -1).all()
            places[head, positions] = place
    take(8 * h["listed_count"])
    for first, count, place in ((0, sinks, SINK), (sinks + slots, tail, TAIL)):
        for head in range(H if count else 0):
            for side in ("key", "value"):
                rows[side][head, first : first + count] = take_rows(count)
            places[head, first : first + count] = place
    for tile in range(-(-slots // T)):
        for head in range(H):
            blob = take(h["blob_bytes"])
            sections = {"key": blob[: key.section_bytes], "value": blob[value_at : value_at + value.section_bytes]}
            gaps = blob[key.section_bytes : value_at] + blob[value_at + value.section_bytes : mask_at]
            assert not any(gaps), "a gap of the blob is not zero"
            valid = np.unpackbits(np.frombuffer(blob[mask_at:], np.uint8), bitorder="little").astype(bool)
            first, n = sinks + tile * T, min(T, slots - tile * T)
            assert not valid[n:].any(), "an unfilled slot is valid"
            isolated = np.isin(places[head, first : first + n], (POOL, AUXILIARY))
            assert (valid[:n] != isolated).all(), "validity bits and isolated entries disagree"
            places[head, first : first + n][valid[:n]] = TILE
            for spec, side, state in ((key, "key", h["key_state"]), (value, "value", h["value_state"])):
                used = spec.used_bits()
                assert used.max() == 1, "two codes share a bit"
                bits = np.unpackbits(np.frombuffer(sections[side], np.uint8), bitorder="little")
                assert not bits[used == 0].any(), "padding is not zero"
                assert not bits[spec.bits[n:]].any(), "an unfilled slot has code bits"
                decoded = spec.undo(spec.decode(sections[side]), state)
                rows[side][head, first : first + n][valid[:n]] = decoded[:n][valid[:n]]
                if not spec.per_channel and spec.P > 0:
                    params = spec.params(sections[side])
                    assert not params[:, n:].any() and not params[:, :n][:, ~valid[:n]].any(), "masked parameters"
    assert at == len(payload), "payload has a rest"
    assert (places >= 0).all(), "a token is nowhere"
    return rows["key"], rows["value"], places


def worked_example():
    """The numbers of the last section of the page."""
    text = "affine2(minimum,half_even,f16,binary16,nearest)"
    key, value = side_spec(f"{text} per_channel32 identity fragment", "key", 128, 128), None
    value = side_spec(f"{text} per_token32 identity fragment", "value", 128, 128)
    linear = side_spec(f"{text} per_channel32 identity linear", "key", 128, 128)
    assert divmod(int(key.bits[77, 45, 0]), 8) == (1391, 0)
    assert [int(key.params_at[i, 45, 2]) for i in (0, 1)] == [4710, 5734]
    at = round_up(key.section_bytes, 16)
    assert at == 6144 and divmod(int(value.bits[77, 45, 0]), 8) == (2414, 4) and at + 2414 == 8558
    assert [at + int(value.params_at[i, 77, 1]) for i in (0, 1)] == [10662, 11686]
    mask = round_up(at + value.section_bytes, 16)
    assert mask == 12288 and mask + 77 // 8 == 12297 and mask + 16 == 12304
    assert divmod(int(linear.bits[77, 45, 0]), 8) == (1459, 2) and int(linear.params_at[0, 45, 2]) == 4460


def padded_shapes(page):
    """The table of the page lists exactly the shapes with padding."""
    rows = re.findall(r"^\| (\d+) \| (key|value) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", page, re.M)
    stated = {(int(b), side, int(D), int(T)): (int(n), int(pad)) for b, side, D, T, n, pad in rows}
    found = {}
    for b in (1, 2, 3, 4, 8, 16):
        for side in ("key", "value"):
            for D in (64, 96, 128, 192, 256):
                for T in (32, 64, 128):
                    spec = side_spec.__new__(side_spec)
                    spec.b, spec.key, spec.D, spec.T = b, side == "key", D, T
                    units = spec.deal()[3]
                    size = -(-3 * units // 2) * 256 if b == 3 else units * 512
                    if size != T * D * b // 8:
                        found[b, side, D, T] = size, size - T * D * b // 8
    assert stated == found, f"table of padded shapes: {set(stated.items()) ^ set(found.items())}"


def main():
    program = os.environ.get("KVCRUMB_WRITE_CACHE") or (sys.argv[1] if len(sys.argv) > 1 else None)
    if not program:
        print("skipped: write_cache is not built (KVCRUMB_WRITE_CACHE)")
        return 77
    worked_example()
    root = pathlib.Path(os.environ.get("KVCRUMB_SOURCE_DIR") or pathlib.Path(__file__).resolve().parents[2])
    padded_shapes((root / "docs" / "format.md").read_text(encoding="utf-8"))
    wrong, values, seen = [], 0, set()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([program, folder], check=True, stdout=subprocess.DEVNULL)
        caches = sorted(pathlib.Path(folder).glob("*.cache"))
        assert len(caches) >= 40, "write_cache wrote too few caches"
        for path in caches:
            try:
                keys, rows_of_values, places = read_cache(path.read_bytes())
            except AssertionError as error:
                wrong.append(f"{path.stem}: {error}")
                continue
            heads, tokens, D = keys.shape
            expected = path.with_suffix(".rows").read_bytes()
            rows = np.frombuffer(expected, "<f4", heads * tokens * 2 * D).reshape(heads, tokens, 2, D)
            expected_places = np.frombuffer(expected, np.uint8, heads * tokens, rows.nbytes).reshape(heads, tokens)
            for name, mine, theirs in (("key", keys, rows[:, :, 0]), ("value", rows_of_values, rows[:, :, 1]),
                                       ("place", places, expected_places)):
                if not np.array_equal(mine, theirs):
                    where = np.argwhere(np.asarray(mine) != theirs)
                    wrong.append(f"{path.stem}: {len(where)} of {mine.size} differ on side {name}, first at {where[0]}")
            values += 2 * keys.size
            seen |= set(np.unique(places))
    if not wrong and seen != {SINK, TILE, POOL, AUXILIARY, TAIL}:
        wrong.append(f"not every place of a token occurred: {seen}")
    print("\n".join(wrong) or f"{len(caches)} caches, {values} values: equal")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
