# SPDX-License-Identifier: Apache-2.0
"""What kvcrumb-compare prints, computed a second time with NumPy from the published definitions of the schemes.

Written from the papers and from the text of docs/, not from the C++ code, and sharing nothing with it. Arithmetic is
double precision except where a definition says otherwise: KIVI's codes are defined by fp16 tensor operations, ggml's
and NF4's by fp32 ones. NumPy's float16 operations compute in binary32 and round once more, which gives the correctly
rounded binary16 result for + - * / (24 >= 2 * 11 + 2 bits).

A "side" is an array [kv_heads][tokens][head_dim] of float64 that holds fp16 numbers.
"""
import json
import struct

import numpy as np

TYPES = {"F16": "<f2", "F32": "<f4", "F64": "<f8", "I32": "<i4", "I64": "<i8"}

# QLoRA (arXiv 2305.14314), appendix E.
NF4 = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
     -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0])  # fmt: skip

SCHEMES = ("fp16", "kivi2", "kivi4", "ott2", "nqkv4", "qserve4", "q8_0", "q4_0")
ROW_INDEPENDENT = ("nqkv4", "qserve4", "q8_0", "q4_0")


def read_safetensors(path):
    """(tensors, metadata): 8-byte little-endian length, JSON header, raw data."""
    with open(path, "rb") as file:
        content = file.read()
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        data = content[8 + length + begin : 8 + length + end]
        tensors[name] = np.frombuffer(data, TYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors, metadata


def number_list(text):
    """[2, 4] of "2,4"; [896, 897, ..., 1023] of "896-1023"."""
    numbers = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


def default_group(tokens):
    return 128 if tokens >= 512 else 64 if tokens >= 256 else 32 if tokens >= 128 else 16


class settings:
    """The options of kvcrumb-compare with its defaults for a sequence of so many tokens."""

    def __init__(self, tokens, group=None, window=None, queries=64, pool=3, trace_from=2, layers=None):
        self.group = group or default_group(tokens)
        self.window = (32 if tokens >= 128 else 0) if window is None else window  # newest tokens that stay exact
        self.tile_tokens = max(32, self.group)
        self.queries = queries  # the last so many recorded queries
        self.pool = pool  # outlier tokens that OTT keeps per kv head
        self.trace_from = trace_from  # OTT leaves layers with smaller numbers alone
        self.layers = layers  # numbers, or all


# ---- quantize and dequantize -------------------------------------------------------------------------------------


def min_max_codes(x, bits, axis, taking_part=None):
    """KIVI (arXiv 2402.02750) on fp16 tensors: s = (max - min) / (2^b - 1), q = rne(clamp((x - min) / s, 0, 2^b - 1)),
    x_hat = q s + min; a constant group is its minimum. Only values where `taking_part` decide about min and max."""
    x16 = x.astype(np.float16)
    assert np.array_equal(x16.astype(np.float64), x)
    everyone = np.ones(x.shape, bool) if taking_part is None else np.broadcast_to(taking_part, x.shape)
    low = np.min(np.where(everyone, x16, np.float16(np.inf)), axis=axis, keepdims=True)
    high = np.max(np.where(everyone, x16, np.float16(-np.inf)), axis=axis, keepdims=True)
    top = np.float16(2**bits - 1)
    scale = (high - low) / top
    with np.errstate(all="ignore"):
        quotient = (x16 - low) / scale
    codes = np.rint(np.clip(np.where(scale > 0, quotient, np.float16(0)), np.float16(0), top))
    assert scale.dtype == quotient.dtype == codes.dtype == np.float16
    return codes.astype(np.float64) * scale.astype(np.float64) + low.astype(np.float64)


def kivi_keys(k, bits, group, taking_part=None):
    """One (scale, min) per channel and `group` consecutive tokens."""
    heads, tokens, width = k.shape
    grouped = k.reshape(heads, tokens // group, group, width)
    mask = None if taking_part is None else taking_part.reshape(heads, tokens // group, group, 1)
    return min_max_codes(grouped, bits, 2, mask).reshape(k.shape)


def kivi_values(v, bits, group):
    """One (scale, min) per token and `group` consecutive channels of its head; a narrower head is one group."""
    group = min(group, v.shape[2])
    assert v.shape[2] % group == 0
    return min_max_codes(v.reshape(*v.shape[:2], -1, group), bits, 3).reshape(v.shape)


def nqkv4(x):
    """NQKV (arXiv 2505.16210): the nearest NF4 level of x / a, a = max |x| of 256 consecutive channels of a token with
    its kv heads side by side, kept as fp16."""
    heads, tokens, width = x.shape
    rows = x.transpose(1, 0, 2).reshape(tokens, heads * width)
    result = np.empty_like(rows)
    block = max(256, width)
    assert block % width == 0
    thresholds = ((NF4.astype(np.float32)[:-1].astype(np.float64) + NF4.astype(np.float32)[1:]) / 2).astype(np.float32)
    for begin in range(0, heads * width, block):
        part = rows[:, begin : begin + block]
        scale = np.max(np.abs(part), axis=1, keepdims=True).astype(np.float16).astype(np.float32)
        with np.errstate(all="ignore"):
            units = np.where(scale > 0, part.astype(np.float32) / scale, np.float32(0))
        codes = np.searchsorted(thresholds, units, side="left")  # how many thresholds a value is strictly above
        result[:, begin : begin + block] = NF4.astype(np.float32)[codes].astype(np.float64) * scale
    return result.reshape(tokens, heads, width).transpose(1, 0, 2)


def qserve4(x):
    """QServe KV4 (arXiv 2405.04532): per token and head s = fp16((max - min) / 15), z = fp16(-15 min / (max - min)),
    q = rne(x / s + z) in [0, 15], x_hat = (q - z) s; steps in fp32."""
    x32 = x.astype(np.float32)
    low, high = x32.min(axis=2, keepdims=True), x32.max(axis=2, keepdims=True)
    span = high - low
    assert np.all(span > 0)
    scale = (span / np.float32(15)).astype(np.float16).astype(np.float32)
    zero = (np.float32(-15) * low / span).astype(np.float16).astype(np.float32)
    codes = np.clip(np.rint(x32 / scale + zero), 0, 15)
    return (codes.astype(np.float64) - zero) * scale


def blocks_of_32(x):
    assert x.shape[2] % 32 == 0
    return x.astype(np.float32).reshape(*x.shape[:2], -1, 32)


def q8_0(x):
    """ggml q8_0: d = max |x| / 127, q = x / d rounded half away from zero (times the reciprocal of the fp32 d), the
    stored d is fp16."""
    blocks = blocks_of_32(x)
    d = np.max(np.abs(blocks), axis=3, keepdims=True) / np.float32(127)
    with np.errstate(all="ignore"):
        inverse = np.where(d > 0, np.float32(1) / d, np.float32(0))
    scaled = (blocks * inverse).astype(np.float64)
    codes = np.sign(scaled) * np.floor(np.abs(scaled) + 0.5)
    return (codes * d.astype(np.float16).astype(np.float64)).reshape(x.shape)


def q4_0(x):
    """ggml q4_0: d = (the value of largest magnitude, first of equals, with its sign) / -8, q = min(15, trunc(x / d +
    8.5)), the stored d is fp16."""
    blocks = blocks_of_32(x)
    at = np.argmax(np.abs(blocks), axis=3)[..., None]
    d = np.take_along_axis(blocks, at, axis=3) / np.float32(-8)
    with np.errstate(all="ignore"):
        inverse = np.where(d != 0, np.float32(1) / d, np.float32(0))
    codes = np.minimum(15, np.trunc(blocks * inverse + np.float32(8.5)))
    return ((codes.astype(np.float64) - 8) * d.astype(np.float16).astype(np.float64)).reshape(x.shape)


# ---- a layer as a cache ------------------------------------------------------------------------------------------


def encoded_tokens(tokens, recent, block):
    """Tokens that left the tail: blocks leave from the old end as long as recent + block tokens are there."""
    encoded = 0
    while tokens - encoded >= recent + block:
        encoded += block
    return encoded


def choose_outliers(k, encoded, capacity):
    """OTT (arXiv 2505.10938), one-shot: per head the `capacity` smallest L1 norms among the tokens to be encoded, the
    older of equals. [head] -> ascending positions."""
    scores = np.abs(k).sum(axis=2)
    return [sorted(np.argsort(row[:encoded], kind="stable")[:capacity].tolist()) for row in scores]


class cached_layer:
    """Keys and values of one layer as a scheme gives them back, and what it costs."""

    def __init__(self, scheme, layer, k, v, options):
        heads, tokens, width = k.shape
        group = options.group
        self.k, self.v = k.copy(), v.copy()
        self.traced = [[] for _ in range(heads)]
        tracing = scheme == "ott2" and layer >= options.trace_from and options.pool > 0
        if scheme == "fp16":
            encoded = 0
        elif scheme in ROW_INDEPENDENT:
            encoded = tokens
            quantize = {"nqkv4": nqkv4, "qserve4": qserve4, "q8_0": q8_0, "q4_0": q4_0}[scheme]
            self.k, self.v = quantize(k), quantize(v)
        else:
            bits = {"kivi2": 2, "kivi4": 4, "ott2": 2}[scheme]
            encoded = encoded_tokens(tokens, options.window, group)
            if tracing:
                self.traced = choose_outliers(k, encoded, options.pool)
            inside = np.ones((heads, encoded), bool)
            for head, positions in enumerate(self.traced):
                inside[head, positions] = False
            if encoded:
                k_hat = kivi_keys(k[:, :encoded], bits, group, inside)
                v_hat = kivi_values(v[:, :encoded], bits, group)
                self.k[:, :encoded] = np.where(inside[..., None], k_hat, k[:, :encoded])
                self.v[:, :encoded] = np.where(inside[..., None], v_hat, v[:, :encoded])
        traced = sum(map(len, self.traced)) if tracing else None
        self.bytes = bytes_of(scheme, k.shape, group, encoded, options.tile_tokens, traced)


def bytes_of(scheme, shape, group, encoded, tile_tokens, traced):
    """Everything that is kept, counted from docs/format.md: whole tiles, masks, padding, pools, tail."""
    heads, tokens, width = shape

    def up(n, alignment):
        return -(-n // alignment) * alignment

    code_bits = {"fp16": 16, "kivi2": 2, "ott2": 2, "kivi4": 4, "nqkv4": 4, "qserve4": 4, "q8_0": 8, "q4_0": 4}[scheme]
    codes = tile_tokens * width * code_bits // 8
    parameters = {  # two bytes each: of a key section, of a value section
        "fp16": (0, 0),
        "nqkv4": (tile_tokens,) * 2,  # every head keeps the scale that it shares
        "qserve4": (2 * tile_tokens,) * 2,
        "q8_0": (tile_tokens * width // 32,) * 2,
        "q4_0": (tile_tokens * width // 32,) * 2,
    }.get(scheme, (2 * width * (tile_tokens // group), 2 * tile_tokens * -(-width // group)))
    keys, values = (codes + 2 * count for count in parameters)
    blob = up(up(up(keys, 16) + values, 16) + tile_tokens // 8, 64)
    tiles = -(-encoded // tile_tokens)
    total = tiles * heads * blob
    total += 2 * (tokens - encoded) * heads * width * 2
    if traced is not None:
        total += traced * (2 * width * 2 + 8 + 4)  # key and value rows, position, score
        total += 2 * 4 * heads  # how many tokens the pool and the auxiliary pool of each head hold
    return total


# ---- attention and metrics ---------------------------------------------------------------------------------------


def attention(q, positions, k, v):
    """Exact causal attention, query head h reads kv head h // (query heads / kv heads).
    (logits [query head][query][token], weights of the same shape, outputs [query head][query][dim])"""
    ratio = q.shape[0] // k.shape[0]
    k, v = np.repeat(k, ratio, axis=0), np.repeat(v, ratio, axis=0)
    logits = q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[2])
    visible = np.arange(k.shape[1])[None, :] <= np.asarray(positions)[:, None]
    logits = np.where(visible[None], logits, -np.inf)
    weights = np.exp(logits - logits.max(axis=2, keepdims=True))
    weights /= weights.sum(axis=2, keepdims=True)
    return logits, weights, weights @ v


def percentile(values, percent):
    """Linear interpolation between the two neighbours in sorted order."""
    ordered = np.sort(np.asarray(values))
    at = (len(ordered) - 1) * percent / 100
    low = int(np.floor(at))
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def log_weights(logits):
    top = logits.max(axis=2, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(axis=2, keepdims=True))


def load_layers(path):
    """[(number, q or None, positions of the queries, k, v)]"""
    tensors, metadata = read_safetensors(path)
    count = tensors["k"].shape[0]
    numbers = number_list(metadata["layers"]) if "layers" in metadata else list(range(count))
    tokens = tensors["k"].shape[2]
    layers = []
    for i, number in enumerate(numbers):
        q, positions = None, []
        if "q" in tensors:
            q = tensors["q"][i].astype(np.float64)
            n = q.shape[1]
            text = metadata.get("query_positions")
            positions = number_list(text) if text else list(range(tokens - n, tokens))
        layers.append((number, q, positions, tensors["k"][i].astype(np.float64), tensors["v"][i].astype(np.float64)))
    return layers


def table(path, schemes=SCHEMES, **options):
    """scheme -> the fields of the JSON output that do not depend on time, and `tops`: the number of top-1 decisions
    together with how many of them are closer than fp32 can tell."""
    layers = load_layers(path)
    options = settings(layers[0][3].shape[1], **options)
    if options.layers is not None:
        layers = [layer for layer in layers if layer[0] in options.layers]
    exact_attention = {}
    for number, q, positions, k, v in layers:
        if q is not None:
            asked = slice(max(0, q.shape[1] - options.queries), None)
            exact_attention[number] = q[:, asked], positions[asked], attention(q[:, asked], positions[asked], k, v)
    results = {}
    for scheme in schemes:
        output_errors, divergences, agreements, doubtful = [], [], [], 0
        sums = np.zeros(4)
        values = bytes_used = 0
        traced = []
        for number, q, positions, k, v in layers:
            cache = cached_layer(scheme, number, k, v, options)
            sums += [((k - cache.k) ** 2).sum(), (k**2).sum(), ((v - cache.v) ** 2).sum(), (v**2).sum()]
            values += k.size + v.size
            bytes_used += cache.bytes
            norms = np.abs(k).sum(axis=2)
            for head, kept in enumerate(cache.traced):
                for position in kept:
                    ratio = norms[head, position] / np.median(norms[head])
                    traced.append({"layer": number, "head": head, "position": position, "norm_ratio": ratio})
            if number not in exact_attention:
                continue
            q, positions, exact = exact_attention[number]
            kept = attention(q, positions, cache.k, cache.v)
            difference = np.linalg.norm(exact[2] - kept[2], axis=2) / np.linalg.norm(exact[2], axis=2)
            output_errors += difference.ravel().tolist()
            with np.errstate(invalid="ignore"):
                terms = exact[1] * (log_weights(exact[0]) - log_weights(kept[0]))
            divergences += np.where(exact[1] > 0, terms, 0).sum(axis=2).ravel().tolist()
            agreements += (exact[0].argmax(axis=2) == kept[0].argmax(axis=2)).ravel().tolist()
            for logits in (exact[0], kept[0]):
                two = np.partition(logits, -2, axis=2)[:, :, -2:]
                doubtful += int(np.count_nonzero(two[..., 1] - two[..., 0] < 1e-5 * np.abs(two[..., 1])))
        bits = 8 * bytes_used / values
        results[scheme] = {
            "scheme": scheme,
            "bits_per_value": bits,
            "compression": 16 / bits,
            "output_rel_l2_mean": float(np.mean(output_errors)) if output_errors else None,
            "output_rel_l2_p99": float(percentile(output_errors, 99)) if output_errors else None,
            "attention_kl_mean": float(np.mean(divergences)) if divergences else None,
            "top1_agreement": float(np.mean(agreements)) if agreements else None,
            "k_rel_l2": float(np.sqrt(sums[0] / sums[1])),
            "v_rel_l2": float(np.sqrt(sums[2] / sums[3])),
            "traced_tokens": traced,
            "tops": (len(agreements), doubtful),
        }
    return results
