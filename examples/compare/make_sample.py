#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the two sample files of kvcrumb-compare out of longer recordings. Needs python3 and numpy.

    make_sample.py --books books16m_frankenstein_1024.safetensors --gpt2 gpt2_124m_21.safetensors --out DIR

sample.safetensors (2.4 MB): layers 1 and 3 of a 16 M parameter model (grouped queries 4:2, head dimension 128,
RoPE) that read 1,024 tokens of Frankenstein; keys and values of all tokens, queries of the last 128.
Of the six layers these two differ most. In layer 1 attention is spread over many tokens (entropy 3.6 nats), the
hardest case for coarse keys. In layer 3 nearly all weight is on one token (entropy 0.05), the largest key channel
is 2.8 times the median one and the smallest token has 0.41 of the median key norm.
It contains no true outlier token: isolating tokens should change nearly nothing here.

sample_gpt2.safetensors (0.45 MB): layers 3 to 9 of GPT-2 124M, 21 tokens, keys and values, no queries. Token 0 is a
true outlier: its key L1 norm, summed over the heads of a layer, is 0.26 to 0.46 of the median.
"""
import argparse
import json
import pathlib
import struct

import numpy as np

BOOKS_LAYERS = (1, 3)
BOOKS_QUERIES = 128
GPT2_LAYERS = (3, 4, 5, 6, 7, 8, 9)
TYPES = {"F16": "<f2", "I32": "<i4", "I64": "<i8"}


def load(path):
    content = pathlib.Path(path).read_bytes()
    (size,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + size])
    header.pop("__metadata__", None)
    data = content[8 + size :]
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], TYPES[entry["dtype"]]).reshape(entry["shape"])
        for name, entry in header.items()
    }


def save(path, tensors, metadata):
    header, parts, offset = {"__metadata__": metadata}, [], 0
    for name, array in tensors.items():
        part = np.ascontiguousarray(array, "<f2").tobytes()
        header[name] = {"dtype": "F16", "shape": list(array.shape), "data_offsets": [offset, offset + len(part)]}
        parts.append(part)
        offset += len(part)
    text = json.dumps(header, indent=1).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(parts))
    print(f"{path}: {path.stat().st_size} bytes")


def numbers(layers):
    return ",".join(str(layer) for layer in layers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--books", required=True)
    parser.add_argument("--gpt2", required=True)
    parser.add_argument("--out", required=True, type=pathlib.Path)
    options = parser.parse_args()

    books = load(options.books)
    layers = list(BOOKS_LAYERS)
    tokens = books["k"].shape[2]
    save(
        options.out / "sample.safetensors",
        {"q": books["q"][layers][:, :, -BOOKS_QUERIES:], "k": books["k"][layers], "v": books["v"][layers]},
        {
            "model": "books16m: 16 M parameters, 6 layers, 4 query heads, 2 kv heads, head dimension 128, RoPE, "
            "biases on q, k and v",
            "text": "Frankenstein; or, The Modern Prometheus, by Mary Shelley (1818), 1,024 tokens that were held out "
            "of the training",
            "origin": "activations recorded from a model trained for the kvcrumb project on about 11 M tokens of "
            "public-domain books (github.com/mlschmitt/classic-books-markdown)",
            "license": "The text is in the public domain; the recorded activations are part of kvcrumb (Apache-2.0).",
            "layout": "[layer][head][token][dim], q and k after RoPE",
            "layers": numbers(layers),
            "query_positions": f"{tokens - BOOKS_QUERIES}-{tokens - 1}",
            "note": "layers 1 and 3 of 6; queries of the last 128 tokens; query i may see tokens 0 to its position",
        },
    )

    gpt2 = load(options.gpt2)
    layers = list(GPT2_LAYERS)
    save(
        options.out / "sample_gpt2.safetensors",
        {"k": gpt2["k"][layers], "v": gpt2["v"][layers]},
        {
            "model": "GPT-2 124M, 12 heads, head dimension 64, no RoPE",
            "text": "21 tokens",
            "origin": "GPT-2 124M activations published with a MIT-licensed quantization repository",
            "license": "MIT",
            "layout": "[layer][head][token][dim], no queries",
            "layers": numbers(layers),
            "note": "layers 3 to 9 of 12; token 0 has a key L1 norm of 0.26 to 0.46 of the median",
        },
    )


if __name__ == "__main__":
    main()
