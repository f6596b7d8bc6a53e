#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The figures of `kvcrumb-compare --risk --json` against an independent NumPy computation from the file (docs/risk.md).

Statistics of keys and values, outlier tokens, and for the schemes q8_0 and q4_0 the errors that recorded queries and
stand-in queries are predicted to see: codes, attention and first-order terms written from the documents.
Recordings: the two embedded samples, and those in KVCRUMB_REAL_DATA_DIR or KVCRUMB_DATA_DIR where there are some.

Environment: KVCRUMB_COMPARE (the program), KVCRUMB_SOURCE_DIR. Exit status 0: agrees, 1: differs, 77: not tested.
Tolerance: 1e-9 relative for statistics (sums in double, in another order); 2e-5 for predictions, which the program makes
from fp32 differences of rows: 1e-7 of a value against errors of at least 4e-3 of it.
"""
import copy
import json
import os
import pathlib
import subprocess
import sys

try:
    import numpy as np
except ImportError:
    print("NOT TESTED: this Python has no NumPy (Debian: python3-numpy)")
    sys.exit(77)

RECORDINGS = ("books16m_frankenstein_1024", "gpt2_124m_21", "qwen2.5-14b_layer0_220")
PROBES, WINDOW, SPREAD = 16, 64, 2.0


def load(path):
    raw = path.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    header.pop("__metadata__", None)
    arrays = {}
    for name, entry in header.items():
        if entry["dtype"] == "F16":
            begin, end = entry["data_offsets"]
            data = np.frombuffer(raw[8 + size + begin : 8 + size + end], "<f2")
            arrays[name] = data.reshape(entry["shape"]).astype(np.float64)
    return arrays


def token_figures(keys, values):
    keys, values = keys / np.median(keys), values / np.median(values)
    order = np.argsort(keys, kind="stable")
    rising = keys[order]
    count = 0
    for n in range(1, min(8, len(keys) // 4) + 1):
        if rising[n - 1] <= 0.5 and rising[n] >= 1.3 * rising[n - 1]:
            count = n
    return {
        "smallest": keys.min(), "smallest_at": int(keys.argmin()), "largest": keys.max(),
        "below_70": int((keys < 0.7).sum()), "below_50": int((keys < 0.5).sum()), "below_30": int((keys < 0.3).sum()),
        "outliers": [{"position": int(t), "key_norm": keys[t], "value_norm": values[t]} for t in order[:count]],
    }  # fmt: skip


def head_figures(k, v):
    size = np.abs(k).mean(0)
    peak = np.abs(k).max(0)
    mean, deviation = k.mean(0), k.std(0)
    return {
        "tokens": token_figures(np.abs(k).sum(1), np.abs(v).sum(1)),
        "channels": {
            "largest": size.max() / np.median(size), "largest_at": int(size.argmax()),
            "largest_peak": peak.max() / np.median(peak), "above_five": int((size > 5 * np.median(size)).sum()),
        },
        "bias": {
            "energy_share": len(k) * (mean**2).sum() / (k**2).sum(),
            "median_size": np.median(np.abs(mean) / deviation), "largest_size": (np.abs(mean) / deviation).max(),
        },
        "kv_norm_ratio": np.median(np.linalg.norm(k, axis=1)) / np.median(np.linalg.norm(v, axis=1)),
    }  # fmt: skip


def half(x):
    return x.astype(np.float32).astype(np.float16).astype(np.float32)


def q8_0(x):
    b = x.astype(np.float32).reshape(-1, 32)
    scale = np.abs(b).max(1, keepdims=True) / np.float32(127)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale > 0)
    y = b * inverse
    codes = np.sign(y) * np.floor(np.abs(y) + np.float32(0.5))
    return (codes * half(scale)).reshape(x.shape)


def q4_0(x):
    b = x.astype(np.float32).reshape(-1, 32)
    largest = np.take_along_axis(b, np.abs(b).argmax(1)[:, None], 1)
    scale = largest / np.float32(-8)
    inverse = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    codes = np.clip(np.floor(b * inverse + np.float32(8.5)), 0, 15)
    return ((codes - 8) * half(scale)).reshape(x.shape)


SCHEMES = {"q8_0": q8_0, "q4_0": q4_0}


def sign(query, token):
    mask = (1 << 64) - 1
    x = ((query << 32 | token) + 0x9E3779B97F4A7C15) & mask
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & mask
    return 1.0 if (x ^ x >> 31) >> 32 & 1 else -1.0


def stand_ins(k):
    """Queries [heads][PROBES][dim] whose logits need no further scale."""
    out = []
    for head, rows in enumerate(k):
        signs = np.array([[sign(head * PROBES + i, t) for t in range(len(rows))] for i in range(PROBES)])
        q = signs @ (rows - rows.mean(0))
        out.append(q * SPREAD / (q @ rows.T).std(1, keepdims=True))
    return np.array(out)


def probe(layer):
    """Scaled queries [query_heads][n][dim] and the position of each."""
    q, positions = layer["q"], layer["positions"]
    window = min(WINDOW, len(positions))
    n = min(PROBES, window)
    chosen = [len(positions) - 1 - (n - 1 - i) * window // n for i in range(n)]
    return q[:, chosen] / np.sqrt(q.shape[-1]), [positions[i] for i in chosen]


def predict(layer, q, positions, k2, v2):
    k, v = layer["k"], layer["v"]
    sums = []
    for head, rows in enumerate(q):
        at = head // (len(q) // len(k))
        for query, position in zip(rows, positions):
            seen = slice(0, position + 1)
            logits = k[at, seen] @ query
            p = np.exp(logits - logits.max())
            p /= p.sum()
            shift = (k2[at, seen] - k[at, seen]) @ query
            shift -= p @ shift
            size = np.linalg.norm(p @ v[at, seen])
            keys, values = (p * shift) @ v[at, seen], p @ (v2[at, seen] - v[at, seen])
            sums.append([np.linalg.norm(keys + values) / size, np.linalg.norm(keys) / size,
                         np.linalg.norm(values) / size, 0.5 * p @ shift**2])  # fmt: skip
    return dict(zip(("output", "key_part", "value_part", "divergence"), np.mean(sums, 0)))


def expected(layer):
    k, v = layer["k"], layer["v"]
    figures = {
        "tokens": token_figures(np.abs(k).sum((0, 2)), np.abs(v).sum((0, 2))),
        "heads": [head_figures(a, b) for a, b in zip(k, v)],
        "schemes": {},
    }
    stand_in = stand_ins(k), [k.shape[1] - 1] * PROBES
    for name, code in SCHEMES.items():
        decoded = code(k).astype(np.float64), code(v).astype(np.float64)
        guess = predict(layer, *stand_in, *decoded)
        if layer["q"] is None:
            figures["schemes"][name] = {"predicted": guess, "stand_in": None}
        else:
            figures["schemes"][name] = {"predicted": predict(layer, *probe(layer), *decoded), "stand_in": guess}
    return figures


def differences(is_, should, tolerance, path=""):
    """Every disagreement, as text; keys that `should` does not have are not compared."""
    if isinstance(should, dict):
        if not isinstance(is_, dict):
            return [f"{path} is {is_!r}"]
        return [d for key in should for d in (differences(is_[key], should[key], tolerance, f"{path}.{key}")
                                              if key in is_ else [f"{path}.{key} is missing"])]  # fmt: skip
    if isinstance(should, list):
        if len(is_) != len(should):
            return [f"{path} has {len(is_)} entries instead of {len(should)}"]
        return [d for i, s in enumerate(should) for d in differences(is_[i], s, tolerance, f"{path}[{i}]")]
    if should is None or isinstance(should, int):
        return [] if is_ == should else [f"{path} is {is_!r}, should be {should!r}"]
    if is_ is None or not abs(is_ - should) <= tolerance * abs(should):
        return [f"{path} is {is_!r}, should be {should!r}"]
    return []


def compare(layer, figures):
    layer = {**layer, "schemes": {s["scheme"]: s for s in layer["schemes"]}}
    statistics = {key: figures[key] for key in ("tokens", "heads")}
    return differences(layer, statistics, 1e-9) + differences(layer, {"schemes": figures["schemes"]}, 2e-5)


def ranks(x):
    return np.array([(x < a).sum() + ((x == a).sum() - 1) / 2 for a in x])


def rank_differences(output):
    check = output["rank_correlation"]["predicted"]
    if check is None:
        return []
    found = []
    places = [("of_means", check["of_means"], output["means"])]
    places += [(f"layer {l['layer']}", c, l["schemes"]) for l, c in zip(output["layers"], check["of_layers"])]
    for name, value, schemes in places:
        a, b = np.array([s["predicted"]["output"] for s in schemes]), np.array([s["measured"] for s in schemes])
        should = np.corrcoef(ranks(a), ranks(b))[0, 1]
        if abs(value - should) > 1e-9:
            found.append(f"rank correlation of {name} is {value}, should be {should}")
    return found


def layers_of(arrays):
    for i in range(len(arrays["k"])):
        layer = {"k": arrays["k"][i], "v": arrays["v"][i], "q": None}
        if "q" in arrays:
            layer["q"] = arrays["q"][i]
            tokens, queries = layer["k"].shape[1], layer["q"].shape[1]
            layer["positions"] = list(range(tokens - queries, tokens))
        yield layer


def unnoticed(layer, figures):
    """Changes of the output that compare() does not see: there must be none."""
    def moved(path, factor=1.001):
        changed = copy.deepcopy(layer)
        at = changed
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = at[path[-1]] * factor if isinstance(at[path[-1]], float) else at[path[-1]] + 1
        return changed

    q8 = [s["scheme"] for s in layer["schemes"]].index("q8_0")
    paths = [("tokens", "smallest"), ("tokens", "below_70"), ("heads", 0, "channels", "largest"), ("heads", 0, "kv_norm_ratio"),
             ("heads", 0, "bias", "energy_share"), ("schemes", q8, "predicted", "output")]  # fmt: skip
    return [path for path in paths if not compare(moved(path), figures)]


def main():
    program, source = os.environ.get("KVCRUMB_COMPARE"), os.environ.get("KVCRUMB_SOURCE_DIR")
    if not program or not source:
        print("NOT TESTED: KVCRUMB_COMPARE and KVCRUMB_SOURCE_DIR are not set (kvcrumb-compare was not built)")
        return 77
    inputs = [pathlib.Path(source) / "examples/compare" / f"{name}.safetensors" for name in ("sample", "sample_gpt2")]
    folder = os.environ.get("KVCRUMB_DATA_DIR") or os.environ.get("KVCRUMB_REAL_DATA_DIR") or ""
    for name in RECORDINGS:
        path = pathlib.Path(folder) / f"{name}.safetensors"
        if folder and path.is_file():
            inputs.append(path)
        else:
            print(f"NOT TESTED: {name} (no such recording)")
    failed = False
    for path in inputs:
        done = subprocess.run([program, "--risk", "--json", "--input", str(path)], capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{path}: exit status {done.returncode}\n{done.stderr}")
        output = json.loads(done.stdout)
        found = rank_differences(output)
        recordings = list(layers_of(load(path)))
        if len(recordings) != len(output["layers"]):
            found.append(f"{len(output['layers'])} layers instead of {len(recordings)}")
        for layer, recorded in zip(output["layers"], recordings):
            figures = expected(recorded)
            found += [f"layer {layer['layer']}{d}" for d in compare(layer, figures)]
            found += [f"layer {layer['layer']}: a change of {p} is not noticed" for p in unnoticed(layer, figures)]
        print(f"{path.name}: {len(output['layers'])} layers, {len(found)} differences")
        for line in found[:20]:
            print("  " + line)
        failed = failed or bool(found)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
