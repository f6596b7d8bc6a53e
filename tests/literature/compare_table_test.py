#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The table of kvcrumb-compare against an independent computation (kv_reference.py) on real recordings.

Environment: KVCRUMB_COMPARE (the program), KVCRUMB_SOURCE_DIR, KVCRUMB_REAL_DATA_DIR or KVCRUMB_DATA_DIR (folder with
further recordings). Exit status 0: agrees, 1: differs, 77: there was nothing to compare with.

Tolerances. Both sides get the same codes, so what may differ is rounding only: the program decodes and attends in fp32
and sums dot products and softmax weights there, NumPy works in double. A logit of some tens is then off by some 1e-6,
an attention output by some 1e-6 of its norm, more where the weighted values cancel.
                        allowed            measured largest   why
  K and V errors        2e-8 relative      1e-9   only decoded values are fp32, and their roundings average out; one
                                                  code off by one among 500,000 would be some 1e-6
  output errors         1e-4 relative      7e-6   1e-6 against errors of at least 5e-3 (q8_0)
    with fp16 rows      5e-6, p99 2e-5     5e-7, 6e-6   nothing but fp32 is left; absolute, because it should be 0
  attention KL          1e-4 relative      4e-6   second order in what fp32 does to the logits
    with fp16 rows      1e-10              2e-12
  top-1 agreement       decisions whose two largest logits are closer than 1e-5 relative, else exact
  bits, positions       exact
"""
import copy
import glob
import json
import os
import pathlib
import subprocess
import sys
import tempfile

try:
    import numpy as np
except ImportError:
    print("NOT TESTED: this Python has no NumPy (Debian: python3-numpy)")
    sys.exit(77)

import kv_reference

TOP_KEYS = ("input", "tokens", "head_dim", "results")
RESULT_KEYS = ("scheme", "bits_per_value", "compression", "output_rel_l2_mean", "output_rel_l2_p99", "attention_kl_mean",
               "top1_agreement", "k_rel_l2", "v_rel_l2", "traced_tokens", "encode_ms", "attend_ms")  # fmt: skip
TOLERANCE = {  # relative; absolute where the exact figure is 0
    "bits_per_value": (1e-12, 0),
    "compression": (1e-12, 0),
    "output_rel_l2_mean": (1e-4, 5e-6),
    "output_rel_l2_p99": (1e-4, 2e-5),
    "attention_kl_mean": (1e-4, 1e-10),
    "k_rel_l2": (2e-8, 0),
    "v_rel_l2": (2e-8, 0),
}
NEEDS_QUERIES = ("output_rel_l2_mean", "output_rel_l2_p99", "attention_kl_mean", "top1_agreement", "attend_ms")


def run_program(program, arguments):
    command = [program, "--json", "--schemes", ",".join(kv_reference.SCHEMES), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{program} {' '.join(arguments)}: exit status {done.returncode}\n{done.stderr}")

    def refuse(word):
        raise SystemExit(f"{word} is not JSON")

    return json.loads(done.stdout, parse_constant=refuse)


def allowed(key, exact):
    relative, absolute = TOLERANCE[key]
    return relative * abs(exact) if exact != 0 else absolute


def differences(output, expected):
    """Every way in which the JSON output disagrees with the expected table, as text."""
    found = [f"top level has no '{key}'" for key in TOP_KEYS if key not in output]
    names = [r.get("scheme") for r in output.get("results", [])]
    if names != list(expected):
        return found + [f"schemes {names} instead of {list(expected)}"]
    for result in output["results"]:
        want = expected[result["scheme"]]
        at = result["scheme"] + "."
        missing = [f"{at}{key} is missing" for key in RESULT_KEYS if key not in result]
        if missing:
            found += missing
            continue
        for key in TOLERANCE:
            is_, should = result[key], want[key]
            if should is None or is_ is None:
                if is_ is not should:
                    found.append(f"{at}{key} is {is_}, should be {should}")
            elif not abs(is_ - should) <= allowed(key, should):
                found.append(f"{at}{key} is {is_!r}, should be {should!r}: off by {abs(is_ - should):.2e}")
        count, doubtful = want["tops"]
        if want["top1_agreement"] is None or result["top1_agreement"] is None:
            if result["top1_agreement"] is not want["top1_agreement"]:
                found.append(f"{at}top1_agreement is {result['top1_agreement']}, should be {want['top1_agreement']}")
        elif abs(result["top1_agreement"] - want["top1_agreement"]) * count > doubtful + 1e-6:
            found.append(f"{at}top1_agreement is {result['top1_agreement']!r}, should be {want['top1_agreement']!r}")
        found += traced_differences(at, result["traced_tokens"], want["traced_tokens"])
        for key in ("encode_ms", "attend_ms"):
            should_be_null = key in NEEDS_QUERIES and want["top1_agreement"] is None
            value = result[key]
            if should_be_null != (value is None) or (value is not None and not 0 <= value < 1e9):
                found.append(f"{at}{key} is {value}")
    return found


def traced_differences(at, is_, should):
    def place(token):
        return token["layer"], token["head"], token["position"]

    is_, should = sorted(is_, key=place), sorted(should, key=place)
    if [place(t) for t in is_] != [place(t) for t in should]:
        return [f"{at}traced_tokens at (layer, head, position) {[place(t) for t in is_]}, should be "
                f"{[place(t) for t in should]}"]  # fmt: skip
    return [
        f"{at}traced_tokens {place(a)}: norm_ratio {a['norm_ratio']!r}, should be {b['norm_ratio']!r}"
        for a, b in zip(is_, should)
        if not abs(a["norm_ratio"] - b["norm_ratio"]) <= 1e-6 * b["norm_ratio"]
    ]


def unnoticed_changes(output, expected):
    """Changes of the output that `differences` does not report: it must report every one of them."""
    unnoticed = []

    def check(text, change):
        changed = copy.deepcopy(output)
        change(changed)
        if not differences(changed, expected):
            unnoticed.append(text)

    check("a missing top-level key", lambda o: o.pop("head_dim"))
    check("a missing scheme", lambda o: o["results"].pop())
    for i, result in enumerate(output["results"]):
        for key in RESULT_KEYS:
            check(f"{result['scheme']}.{key} missing", lambda o: o["results"][i].pop(key))
            value = result[key]
            if value is None:
                check(f"{result['scheme']}.{key} = 0 for null", lambda o: o["results"][i].update({key: 0.0}))
            elif key in TOLERANCE:
                exact = expected[result["scheme"]][key]
                off = exact + 1.01 * allowed(key, exact) + 1e-12
                check(f"{result['scheme']}.{key} = {off}", lambda o: o["results"][i].update({key: off}))
                check(f"{result['scheme']}.{key} = null", lambda o: o["results"][i].update({key: None}))
        if result["top1_agreement"] is not None:
            count, doubtful = expected[result["scheme"]]["tops"]
            off = result["top1_agreement"] - (doubtful + 1) / count
            check(f"{result['scheme']}.top1_agreement", lambda o: o["results"][i].update({"top1_agreement": off}))
        if result["traced_tokens"]:
            tokens = result["traced_tokens"]
            for key in ("layer", "head", "position"):
                other = dict(tokens[0], **{key: tokens[0][key] + 1})
                check(f"traced {key}", lambda o: o["results"][i].update({"traced_tokens": [other] + tokens[1:]}))
            other = dict(tokens[0], norm_ratio=tokens[0]["norm_ratio"] * 1.00001)
            check("traced norm_ratio", lambda o: o["results"][i].update({"traced_tokens": [other] + tokens[1:]}))
            check("a traced token too few", lambda o: o["results"][i].update({"traced_tokens": tokens[1:]}))
    return unnoticed


def gain_of_tracing(k, group):
    """How much smaller the relative error of the other 2-bit keys is with three tokens of every head kept apart."""
    plain = kv_reference.kivi_keys(k, 2, group)
    inside = np.ones(k.shape[:2], bool)
    for head, positions in enumerate(kv_reference.choose_outliers(k, k.shape[1], 3)):
        inside[head, positions] = False
    traced = kv_reference.kivi_keys(k, 2, group, inside)
    plain, traced, k = plain[inside], traced[inside], k[inside]
    return float((np.linalg.norm(k - plain) - np.linalg.norm(k - traced)) / np.linalg.norm(k))


def published_figures(folder):
    """The reference itself against figures found elsewhere for the same recordings. (name, is, lowest, highest)"""
    figures = []
    qwen = folder / "qwen2.5-14b_layer0_220.safetensors"
    if qwen.exists():
        k = kv_reference.load_layers(qwen)[0][3]

        def relative(x, x_hat):
            return float(np.sqrt(((x - x_hat) ** 2).sum() / (x**2).sum()))

        for group, figure in ((32, 0.090), (64, 0.105), (128, 0.118)):
            whole = k[:, : k.shape[1] // group * group]
            error = relative(whole, kv_reference.kivi_keys(whole, 2, group))
            figures.append((f"Qwen keys per channel, group {group}", error, figure - 0.0006, figure + 0.0006))
        for group, figure in ((32, 0.51), (128, 0.99)):
            error = relative(k, kv_reference.kivi_values(k, 2, group))
            figures.append((f"Qwen keys per token, group {group}", error, figure - 0.006, figure + 0.006))
        gain = gain_of_tracing(k[:, :192], 32)  # negative control: no outlier token there
        figures.append(("Qwen keys, gain of the others with 3 tokens kept", gain, 0.0, 0.0002))
    books = folder / "books16m_frankenstein_1024.safetensors"
    if books.exists():  # the other negative control
        gain = float(np.mean([gain_of_tracing(k, 128) for _, _, _, k, _ in kv_reference.load_layers(books)]))
        figures.append(("books16m keys, gain of the others with 3 tokens kept", gain, 0.0, 0.001))
    gpt2 = folder / "gpt2_124m_21.safetensors"
    if gpt2.exists():
        for number, _, _, k, _ in kv_reference.load_layers(gpt2)[3:10]:
            others = np.ones((*k.shape[:2], 1), bool)
            others[:, 0] = False
            plain = kv_reference.min_max_codes(k, 2, 1)
            without = kv_reference.min_max_codes(k, 2, 1, others)
            gain = float(((k - plain)[:, 1:] ** 2).mean() / ((k - without)[:, 1:] ** 2).mean())
            figures.append((f"GPT-2 layer {number}, MSE gain of leaving token 0 out", gain, 1.35, 3.05))
    return figures


def with_query_positions(sample, path, positions):
    """A copy of the sample with so few queries, standing at any positions in any order."""
    tensors, metadata = kv_reference.read_safetensors(sample)
    tensors["q"] = tensors["q"][:, :, : len(positions)]
    metadata["query_positions"] = ",".join(map(str, positions))
    header, data = {"__metadata__": metadata}, b""
    for name, array in tensors.items():
        part = array.tobytes()
        offsets = [len(data), len(data) + len(part)]
        header[name] = {"dtype": "F16", "shape": list(array.shape), "data_offsets": offsets}
        data += part
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def main():
    with tempfile.TemporaryDirectory() as scratch:
        return compare_everything(pathlib.Path(scratch))


def compare_everything(scratch):
    program = os.environ.get("KVCRUMB_COMPARE")
    if not program or not os.path.exists(program):
        print(f"NOT TESTED: no kvcrumb-compare (KVCRUMB_COMPARE is {program!r}); build the examples")
        return 77
    samples = pathlib.Path(os.environ["KVCRUMB_SOURCE_DIR"]) / "examples" / "compare"
    sample, gpt2 = samples / "sample.safetensors", samples / "sample_gpt2.safetensors"
    #        file, how the program is told, options of the reference
    cases = [
        (sample, [], {}),
        (sample, ["--input", str(sample), "--group", "32", "--queries", "5"], {"group": 32, "queries": 5}),
        (sample, ["--input", str(sample), "--group", "64", "--window", "0", "--pool", "9", "--trace-from", "0"],
         {"group": 64, "window": 0, "pool": 9, "trace_from": 0}),
        (sample, ["--input", str(sample), "--group", "16", "--window", "200", "--layers", "3"],
         {"group": 16, "window": 200, "layers": [3]}),
        (sample, ["--input", str(sample), "--pool", "0"], {"pool": 0}),
        (gpt2, ["--sample", "sample_gpt2"], {}),
    ]  # fmt: skip
    for name, positions in (("gaps", [3, 7, 500, 900, 1023]), ("disorder", [1000, 1002, 1001, 1003])):
        path = with_query_positions(sample, scratch / f"{name}.safetensors", positions)
        cases.append((path, ["--input", str(path)], {}))
    folder = os.environ.get("KVCRUMB_DATA_DIR") or os.environ.get("KVCRUMB_REAL_DATA_DIR")
    recordings = sorted(glob.glob(os.path.join(folder, "*.safetensors"))) if folder else []
    for path in recordings:
        cases.append((path, ["--input", path], {}))
        cases.append((path, ["--input", path, "--trace-from", "0", "--queries", "9"], {"trace_from": 0, "queries": 9}))
    if not recordings:
        print(f"NOT TESTED: recordings of KVCRUMB_REAL_DATA_DIR ({folder!r}); only the samples of the repository")

    failures = 0
    for path, arguments, options in cases:
        output = run_program(program, arguments)
        expected = kv_reference.table(path, **options)
        found = differences(output, expected)
        layers = kv_reference.load_layers(path)
        for key, value in (("tokens", layers[0][3].shape[1]), ("head_dim", layers[0][3].shape[2])):
            if output[key] != value:
                found.append(f"{key} is {output[key]}, should be {value}")
        queries = "with queries" if expected["fp16"]["top1_agreement"] is not None else "no queries"
        print(f"{'ok  ' if not found else 'FAIL'} {os.path.basename(path)} ({queries}) {' '.join(arguments[2:])}")
        for text in found:
            print("     " + text)
        failures += len(found)
        if not found:
            unnoticed = unnoticed_changes(output, expected)
            for text in unnoticed:
                print(f"     the comparison does not notice: {text}")
            failures += len(unnoticed)
    for name, value, lowest, highest in published_figures(pathlib.Path(folder)) if folder else []:
        good = lowest <= value <= highest
        print(f"{'ok  ' if good else 'FAIL'} {name}: {value:.4f} in [{lowest:.4f}, {highest:.4f}]")
        failures += not good
    print(f"{failures} disagreements")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
