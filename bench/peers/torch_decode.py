#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times fp16 decode attention of PyTorch in the shapes of bench/cuda/decode.cu: SDPA (flash, cuDNN) and flex_attention.

usage: torch_decode.py --json FILE [--seconds N] [--filter REGEX]

One query token, head_dim 128. Each variant runs over copies of keys and values that together exceed the L2 twice, one
launch after another and as a CUDA graph; medians of 15 samples of about 2 ms, by events. Outputs are compared with
float32 first. A variant that fails is reported with its message. Exit status 77 without torch or a device.
"""
import argparse
import json
import re
import sys
import time

try:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

HEAD_DIM = 128
SAMPLES = 15
HEADS = [(32, 8), (64, 8), (32, 32)]
SHAPES = [(s, t) for s in (16, 1, 64) for t in (32768, 4096, 131072)]
FLEX_SHAPES = {(16, 32768), (1, 32768), (1, 131072)}  # each shape is compiled for seconds


def attention(variant):
    """The function of (q, k, v) of a variant."""
    if variant == "flex":
        from torch.nn.attention.flex_attention import flex_attention

        compiled = torch.compile(flex_attention, dynamic=False)
        return lambda q, k, v: compiled(q, k, v, enable_gqa=q.shape[1] != k.shape[1])
    backend = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}[variant]

    def run(q, k, v):
        with sdpa_kernel(backend):
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=q.shape[1] != k.shape[1])

    return run


def milliseconds(run):
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def median_microseconds(run, launches):
    for _ in range(3):
        run()
    times = sorted(milliseconds(run) / launches for _ in range(SAMPLES))
    return 1e3 * times[len(times) // 2], 1e3 * times[0]


def relative_error(function, q, k, v):
    """Of the first sequence and kv head, against float32."""
    ratio = q.shape[1] // k.shape[1]
    out = function(q, k, v)[:1, :ratio].float()
    scores = q[:1, :ratio].float() @ k[:1, :1].float().transpose(-1, -2) / HEAD_DIM**0.5
    expected = torch.softmax(scores, -1) @ v[:1, :1].float()
    return ((out - expected).norm() / expected.norm()).item()


def measure(function, inputs, how):
    def pass_over(count):
        for i in range(count):
            function(*inputs[i % len(inputs)])

    launches = max(len(inputs), 3)
    pass_over(launches)
    one = milliseconds(lambda: pass_over(launches)) / launches
    launches = min(512, -(-max(int(2.0 / one) + 1, len(inputs)) // len(inputs)) * len(inputs))
    launches = max(launches, len(inputs))
    if how == "stream":
        return (*median_microseconds(lambda: pass_over(launches), launches), launches)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        pass_over(launches)
    return (*median_microseconds(graph.replay, launches), launches)


def copy_bandwidth():
    a = torch.empty(1 << 30, dtype=torch.uint8, device="cuda").random_()
    b = torch.empty_like(a)
    return 2 * a.numel() * 5 / (1e-3 * sorted(milliseconds(lambda: [b.copy_(a) for _ in range(5)]) for _ in range(9))[4])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--filter", default="")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("skipped: no device")
        return 77
    end = time.monotonic() + options.seconds
    torch.manual_seed(1)
    properties = torch.cuda.get_device_properties(0)
    l2 = getattr(properties, "L2_cache_size", 64 << 20)
    copy = copy_bandwidth()
    context = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "device": properties.name,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "l2_bytes": l2,
        "copy_MB_per_s": int(copy / 1e6),
    }
    results = []

    def save():
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump({"context": context, "benchmarks": results}, file, indent=1)

    for sequences, tokens in SHAPES:
        for query_heads, kv_heads in HEADS:
            size = 2 * 2 * HEAD_DIM * sequences * tokens * kv_heads
            shape = f"B:{sequences}/S:{tokens}/Hq:{query_heads}/Hkv:{kv_heads}"
            copies = 1 + int(2 * l2 / size)
            torch.cuda.empty_cache()
            if copies * size > 0.85 * torch.cuda.mem_get_info()[0]:
                print(f"{shape}: skipped, {copies * size / 1e9:.1f} GB do not fit")
                continue
            if time.monotonic() > end:
                print(f"{shape}: left out, no time")
                continue

            def random(heads, length):
                return torch.randn(sequences, heads, length, HEAD_DIM, dtype=torch.float16, device="cuda")

            inputs = [(random(query_heads, 1), random(kv_heads, tokens), random(kv_heads, tokens)) for _ in range(copies)]
            for variant in ("flash", "cudnn", "flex"):
                if variant == "flex" and (sequences, tokens) not in FLEX_SHAPES:
                    continue
                for how in ("stream", "graph"):
                    name = f"torch_{variant}/{shape}/{how}"
                    if not re.search(options.filter, name) or time.monotonic() > end:
                        continue
                    entry = {"name": name}
                    try:
                        function = attention(variant)
                        error = relative_error(function, *inputs[0])
                        entry["relative_error"] = error
                        if not error < 5e-3:
                            raise RuntimeError(f"wrong: relative error {error}")
                        us, fastest, launches = measure(function, inputs, how)
                        entry.update(us=us, us_min=fastest, launches=launches, copies=copies, MB=size / 1e6,
                                     GB_per_s=size / us / 1e3, percent_of_copy=100 * size / (us * 1e-6) / copy)
                        print(f"{name}: {us:.1f} us, {size / us / 1e3:.0f} GB/s, error {error:.1e}", flush=True)
                    except Exception as error:  # pylint: disable=broad-except
                        entry["error_message"] = str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
                        print(f"{name}: {entry['error_message']}", flush=True)
                    results.append(entry)
                    save()
            del inputs
    save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
