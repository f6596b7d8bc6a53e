#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""kvcrumb-lm against an independent NumPy transformer, tokenizer and KL divergence.

Environment: KVCRUMB_LM (the program), KVCRUMB_REAL_DATA_DIR or KVCRUMB_DATA_DIR (folder with books16m and its recording).
Exit status 0: agrees, 1: differs, 77: there was nothing to compare with.

Written from the descriptions of the models (RMS norm, rotary embedding, grouped queries, SwiGLU; Qwen2's biases, Qwen3's
norm of queries and keys, Mistral's window, Llama 3's frequencies), in double precision, without a cache.

Tolerances. The program works in fp32, NumPy in double: sums over 512 to 1,024 products are off by some 1e-6 of their
size, and the residual stream adds that up over the layers.
                              allowed         measured largest
  logits                      1e-3            4e-5 (books16m, logits up to 20)
  recorded rows (fp16)        1e-3            4e-4 of the largest, against NumPy
    against the recording     1e-3            3e-4 relative L2, what two roundings to fp16 make
  perplexity of the recording 0.005           0.0034 (its header has two decimals)
  divergences                 1e-6 + 1e-4     both sides start from logits in fp32
  token numbers               exact
"""
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import unicodedata

try:
    import numpy as np
except ImportError:
    print("NOT TESTED: this Python has no NumPy (Debian: python3-numpy)")
    sys.exit(77)

PROGRAM = os.environ.get("KVCRUMB_LM")
failures = []


def check(what, good, detail=""):
    print(f"{'ok  ' if good else 'FAIL'} {what} {detail}")
    if not good:
        failures.append(what)


def run(*arguments):
    done = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True)
    if done.returncode != 0:
        raise SystemExit(f"kvcrumb-lm {' '.join(map(str, arguments))}: {done.returncode}\n{done.stderr.decode()}")
    return done.stdout


# --- files


def read_safetensors(path):
    data = pathlib.Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    types = {"F16": "<f2", "F32": "<f4", "I32": "<i4", "I8": "<i1"}
    tensors = {}
    for name, entry in header.items():
        begin, end = (8 + size + o for o in entry["data_offsets"])
        if entry["dtype"] == "BF16":
            bits = np.frombuffer(data[begin:end], "<u2").astype("<u4") << 16
            array = bits.view("<f4")
        else:
            array = np.frombuffer(data[begin:end], types[entry["dtype"]])
        tensors[name] = array.reshape(entry["shape"])
    for name in [n for n in tensors if n + "_scale" in tensors]:  # 8-bit integers with a scale for each row
        tensors[name] = tensors[name].astype(np.float64) * tensors.pop(name + "_scale")
    return tensors, metadata


def write_safetensors(path, tensors, kind):
    header, data = {}, b""
    for name, array in tensors.items():
        if kind == "BF16":
            part = (array.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
        else:
            part = array.astype({"F16": "<f2", "F32": "<f4"}[kind]).tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


# --- the transformer


def frequencies(config):
    dim = config["head_dim"]
    f = config["rope_theta"] ** (-np.arange(0, dim, 2) / dim)
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") == "linear":
        return f / scaling["factor"]
    if scaling.get("rope_type") == "llama3":
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        original, factor = scaling["original_max_position_embeddings"], scaling["factor"]
        wavelength = 2 * np.pi / f
        smooth = (original / wavelength - low) / (high - low)
        middle = (1 - smooth) * f / factor + smooth * f
        return np.where(wavelength > original / low, f / factor, np.where(wavelength < original / high, f, middle))
    return f


def norm(x, weight, epsilon):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * weight


def rotate(x, cosine, sine):  # x [heads][token][dim]
    half = x.shape[-1] // 2
    turned = np.concatenate([-x[..., half:], x[..., :half]], -1)
    return x * np.concatenate([cosine, cosine], -1) + turned * np.concatenate([sine, sine], -1)


def forward(config, w, tokens):
    """Logits, and the rows of every layer as a recording has them."""
    w = {name: array.astype(np.float64) for name, array in w.items()}
    heads, kv_heads, dim = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    epsilon, n = config["rms_norm_eps"], len(tokens)
    angles = np.outer(np.arange(n), frequencies(config))
    cosine, sine = np.cos(angles), np.sin(angles)
    distance = np.arange(n)[:, None] - np.arange(n)[None, :]
    hidden = distance < 0
    if config["model_type"] == "mistral" and config.get("sliding_window"):
        hidden |= distance >= config["sliding_window"]
    x = w["model.embed_tokens.weight"][tokens]
    recorded = {"q": [], "k": [], "k_pre_rope": [], "v": []}
    for i in range(config["num_hidden_layers"]):
        name = f"model.layers.{i}."

        def linear(part, rows):
            y = rows @ w[name + part + ".weight"].T
            return y + w[name + part + ".bias"] if name + part + ".bias" in w else y

        h = norm(x, w[name + "input_layernorm.weight"], epsilon)
        q, k, v = (linear(f"self_attn.{p}_proj", h).reshape(n, -1, dim).transpose(1, 0, 2) for p in "qkv")
        if name + "self_attn.q_norm.weight" in w:
            q = norm(q, w[name + "self_attn.q_norm.weight"], epsilon)
            k = norm(k, w[name + "self_attn.k_norm.weight"], epsilon)
        recorded["k_pre_rope"].append(k)
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        for part, rows in zip("qkv", (q, k, v)):
            recorded[part].append(rows)
        repeat = heads // kv_heads
        scores = q @ np.repeat(k, repeat, 0).transpose(0, 2, 1) / np.sqrt(dim)
        scores[:, hidden] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = (weights @ np.repeat(v, repeat, 0)).transpose(1, 0, 2).reshape(n, heads * dim)
        x = x + linear("self_attn.o_proj", mixed)
        h = norm(x, w[name + "post_attention_layernorm.weight"], epsilon)
        gate = linear("mlp.gate_proj", h)
        x = x + linear("mlp.down_proj", gate / (1 + np.exp(-gate)) * linear("mlp.up_proj", h))
    x = norm(x, w["model.norm.weight"], epsilon)
    output = w["model.embed_tokens.weight" if config.get("tie_word_embeddings") else "lm_head.weight"]
    return x @ output.T, {part: np.stack(rows) for part, rows in recorded.items()}


def log_softmax(logits):
    logits = logits.astype(np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


# --- the tokenizer


def byte_characters():
    plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or b >= 174]
    table = {b: chr(b) for b in plain}
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + len(table) - len(plain))
    return table


def class_ranges(category):
    """The code points of a general category as the inside of a character class of `re`."""
    points = [c for c in range(sys.maxunicode + 1) if unicodedata.category(chr(c)).startswith(category)]
    text, first = "", points[0]
    for before, point in zip(points, points[1:] + [-1]):
        if point != before + 1:
            text += f"{re.escape(chr(first))}-{re.escape(chr(before))}"
            first = point
    return text


def python_pattern(pattern):
    letters, numbers = class_ranges("L"), class_ranges("N")
    out, inside = "", False
    for part in re.findall(r"\\p\{L\}|\\p\{N\}|\\.|.", pattern, re.S):
        if part in (r"\p{L}", r"\p{N}"):
            ranges = letters if part == r"\p{L}" else numbers
            part = ranges if inside else f"[{ranges}]"
        elif part == "[":
            inside = True
        elif part == "]":
            inside = False
        out += part
    return re.compile(out)


GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Bpe:
    def __init__(self, path, pattern=None):
        root = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
        self.vocabulary = root["model"]["vocab"]
        pairs = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in root["model"]["merges"]]
        self.ranks = {pair: i for i, pair in enumerate(pairs)}
        self.pattern = python_pattern(pattern or root["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"])
        self.characters = byte_characters()
        self.known = {}

    def word(self, piece):
        symbols = [self.characters[b] for b in piece.encode("utf-8")]
        while len(symbols) > 1:
            ranks = [self.ranks.get(pair, float("inf")) for pair in zip(symbols, symbols[1:])]
            best = min(ranks)
            if best == float("inf"):
                break
            i = ranks.index(best)
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
        return [self.vocabulary[s] for s in symbols]

    def encode(self, text):
        out = []
        for match in self.pattern.finditer(text):
            piece = match.group()
            if piece not in self.known:
                self.known[piece] = self.word(piece)
            out += self.known[piece]
        return out


def train_merges(words, count, characters):
    """A few merges, by frequency of pairs, so that there is something to merge."""
    pieces = [[characters[b] for b in w.encode("utf-8")] for w in words]
    merges = []
    for _ in range(count):
        pairs = {}
        for p in pieces:
            for pair in zip(p, p[1:]):
                pairs[pair] = pairs.get(pair, 0) + 1
        best = max(sorted(pairs), key=pairs.get)
        merges.append(best)
        for p in pieces:
            i = 0
            while i + 1 < len(p):
                if (p[i], p[i + 1]) == best:
                    p[i : i + 2] = [p[i] + p[i + 1]]
                i += 1
    return merges


TEXT = (
    "Hello world's  we'LL see\u2014It's 12345 o'clock,\r\n\r\n  don't   stop!!!\n\tna\u00efve \u4f60\u597d\u4e16\u754c "
    "\u0645\u0631\u062d\u0628\u0627 \u216b\u00b2\u00bd \u00a0x \U0001f600\U0001f468\u200d\U0001f469 'Re 'tis --- ___ \u2028\n   end   "
)


def write_tokenizer(path, pattern, pairs_as_text):
    characters = byte_characters()
    merges = train_merges([TEXT] + TEXT.split(" "), 60, characters)
    vocabulary = {"<bos>": 0}
    for token in [characters[b] for b in range(256)] + [a + b for a, b in merges]:
        vocabulary.setdefault(token, len(vocabulary))
    split = [] if pattern is None else [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}]  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": pattern is None}
    root = {
        "added_tokens": [{"id": 0, "content": "<bos>", "special": True}],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": split + [byte_level]},
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [" ".join(m) if pairs_as_text else list(m) for m in merges]},
    }
    path.write_text(json.dumps(root), encoding="utf-8")
    return len(vocabulary)


# --- tests


def tokenizer_tests(folder):
    for name, pattern in (("gpt2", None), ("llama3", LLAMA3), ("qwen2", LLAMA3.replace("{1,3}", ""))):
        write_tokenizer(folder / "tokenizer.json", pattern, name == "gpt2")
        text = folder / "text.txt"
        text.write_bytes(TEXT.encode("utf-8"))
        got = list(map(int, run("tokenize", "--model", folder, "--text", text).split()))
        want = Bpe(folder / "tokenizer.json", pattern or GPT2).encode(TEXT)
        check(f"token numbers, pattern of {name}", got == want, f"{len(want)} tokens")


MODELS = {
    "llama": {"model_type": "llama", "attention_bias": True, "tie_word_embeddings": False, "num_key_value_heads": 4,
              "rope_scaling": {"rope_type": "linear", "factor": 2.5}},
    "llama3": {"model_type": "llama", "tie_word_embeddings": True,
               "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                "original_max_position_embeddings": 64}},
    "mistral": {"model_type": "mistral", "sliding_window": 11, "tie_word_embeddings": False},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True, "use_sliding_window": False, "sliding_window": 11},
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": False, "head_dim": 48},
}  # fmt: skip


def random_model(folder, name, kind, shards):
    config = {"vocab_size": 0, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "head_dim": 32,
              "num_key_value_heads": 2, "intermediate_size": 80, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
              "max_position_embeddings": 512, "hidden_act": "silu", "bos_token_id": 0, **MODELS[name]}  # fmt: skip
    config["vocab_size"] = write_tokenizer(folder / "tokenizer.json", LLAMA3, False)
    hidden, dim, inner = config["hidden_size"], config["head_dim"], config["intermediate_size"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    random = np.random.default_rng(7)
    w = {"model.embed_tokens.weight": random.normal(0, 1, (config["vocab_size"], hidden)),
         "model.norm.weight": random.uniform(0.5, 2, hidden)}  # fmt: skip
    if not config["tie_word_embeddings"]:
        w["lm_head.weight"] = random.normal(0, 0.5, (config["vocab_size"], hidden))
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for part in ("input_layernorm", "post_attention_layernorm"):
            w[at + part + ".weight"] = random.uniform(0.5, 2, hidden)
        for part, out, width in (("self_attn.q", q, hidden), ("self_attn.k", kv, hidden), ("self_attn.v", kv, hidden),
                                 ("self_attn.o", hidden, q), ("mlp.gate", inner, hidden), ("mlp.up", inner, hidden),
                                 ("mlp.down", hidden, inner)):  # fmt: skip
            w[at + part + "_proj.weight"] = random.normal(0, width**-0.5, (out, width))
            bias = name == "qwen2" and part[-1] in "qkv" and "self_attn" in part
            if bias or (config.get("attention_bias") and "self_attn" in part):
                w[at + part + "_proj.bias"] = random.normal(0, 1, out)
        if name == "qwen3":
            w[at + "self_attn.q_norm.weight"] = random.uniform(0.5, 2, dim)
            w[at + "self_attn.k_norm.weight"] = random.uniform(0.5, 2, dim)
    (folder / "config.json").write_text(json.dumps(config))
    names = sorted(w)
    files = [names[i::shards] for i in range(shards)]
    for i, part in enumerate(files):
        file = "model.safetensors" if shards == 1 else f"model-{i + 1}.safetensors"
        write_safetensors(folder / file, {n: w[n] for n in part}, kind)
    if shards > 1:
        index = {n: f"model-{i + 1}.safetensors" for i, part in enumerate(files) for n in part}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    stored = {}
    for path in folder.glob("model*.safetensors"):
        stored.update(read_safetensors(path)[0])
    return config, stored


def model_tests(scratch):
    for name, kind, shards in (("llama", "F32", 1), ("llama3", "F16", 1), ("mistral", "BF16", 3), ("qwen2", "F32", 1),
                               ("qwen3", "F32", 2)):  # fmt: skip
        folder = scratch / name
        folder.mkdir()
        config, w = random_model(folder, name, kind, shards)
        (folder / "text.txt").write_bytes(TEXT.encode("utf-8"))
        out = folder / "logits.safetensors"
        run("logits", "--model", folder, "--text", folder / "text.txt", "--scheme", "fp32", "--chunk", 5, "--tokens", 0,
            "--output", out)  # fmt: skip
        got, _ = read_safetensors(out)
        check(f"{name}: the first token is bos", got["token_ids"][0] == 0)
        want, _ = forward(config, w, got["token_ids"])
        error = np.abs(got["logits"] - want).max()
        check(f"{name}: logits", error < 1e-3, f"off by {error:.1e} of up to {np.abs(want).max():.0f}")


def books_tests(model, text, skip, recording, scratch):
    """A trained model on 1,023 tokens of a text, and on the recording of its rows if there is one."""
    config = json.loads((model / "config.json").read_text())
    w, _ = read_safetensors(model / "model.safetensors")
    bpe = Bpe(model / "tokenizer.json")
    for file in sorted(model.glob("heldout*.txt")):
        content = file.read_bytes().decode("utf-8")
        got = list(map(int, run("tokenize", "--model", model, "--text", file).split()))
        check(f"token numbers of {file.name}", got == bpe.encode(content), f"{len(got)} tokens")

    tokens = [0] + bpe.encode(text.read_bytes().decode("utf-8"))[skip : skip + 1023]
    want, rows = forward(config, w, tokens)
    out = scratch / "books.safetensors"
    window = ("--model", model, "--text", text, "--skip", skip, "--tokens", 1023)
    logits = {}
    for scheme in ("fp32", "fp16", "kivi2"):
        run("logits", *window[:-1], 1024, "--scheme", scheme, "--chunk", 32, "--output", out)
        got, _ = read_safetensors(out)
        logits[scheme] = got["logits"]
        check(f"{model.name}, {scheme}: token numbers", got["token_ids"].tolist() == tokens)
    error = np.abs(logits["fp32"] - want).max()
    check(f"{model.name}: logits", error < 1e-3, f"off by {error:.1e} of up to {np.abs(want).max():.0f}")

    if recording and recording.exists():
        recorded, metadata = read_safetensors(recording)
        check("the recording has these tokens", recorded["token_ids"].tolist() == tokens)
        loss = -log_softmax(want)[np.arange(1023), tokens[1:]].mean()
        check("perplexity of the recording", abs(np.exp(loss) - float(metadata["ppl"])) < 0.01, f"{np.exp(loss):.4f}")
        run("dump", *window[:-1], 1024, "--output", out)
        dumped, _ = read_safetensors(out)
        for part in ("q", "k", "k_pre_rope", "v"):
            mine = dumped[part].astype(np.float64)
            error = np.abs(mine - rows[part]).max() / np.abs(rows[part]).max()
            check(f"dump: {part}", mine.shape == rows[part].shape and error < 1e-3, f"off by {error:.1e}")
            other = recorded[part].astype(np.float64)
            error = np.linalg.norm(mine - other) / np.linalg.norm(other)
            check(f"dump: {part} is near the recording's", error < 1e-3, f"off by {error:.1e}")

        compare = os.environ.get("KVCRUMB_COMPARE")
        if compare:  # risk reads the same rows in fp32 that the dump holds in fp16
            text = subprocess.run([compare, "--risk", "--json", "--input", out], capture_output=True, check=True).stdout
            of_dump, of_model = json.loads(text), json.loads(run("risk", *window[:-1], 1024, "--json"))
            check("risk: the advice", of_model["recommended"] == of_dump["recommended"])
            for mine, other in zip(of_model["layers"], of_dump["layers"], strict=True):
                mine, other = ({x["scheme"]: x["predicted"]["output"] for x in y["schemes"]} for y in (mine, other))
                error = max(abs(mine[name] / other[name] - 1) for name in other)
                check("risk: predicted errors of a layer", mine.keys() == other.keys() and error < 0.1, f"off by {error:.3f}")

    result = json.loads(run("eval", *window, "--schemes", "kivi2", "--chunk", 32, "--json", "-", "--each-token"))
    control, kivi = result["results"]
    base, other = log_softmax(logits["fp16"][:-1]), log_softmax(logits["kivi2"][:-1])
    divergence = (np.exp(base) * (base - other)).sum(-1)
    got = np.array(kivi["token_divergences"])
    error = (np.abs(got - divergence) / (1e-6 + 1e-4 * divergence)).max()
    check("eval: divergence of every token", error < 1, f"mean {divergence.mean():.6f}")
    summary = kivi["divergence"]
    for key, value in (("mean", divergence.mean()), ("median", np.median(divergence)), ("largest", divergence.max()),
                       ("percent_99", np.percentile(divergence, 99)), ("percent_99_9", np.percentile(divergence, 99.9)),
                       ("error", divergence.std(ddof=1) / 1023**0.5)):  # fmt: skip
        check(f"eval: {key}", abs(summary[key] - value) < 1e-6 + 1e-4 * value)
    losses = [-p[np.arange(1023), tokens[1:]] for p in (base, other)]
    check("eval: perplexity", abs(kivi["perplexity"] / np.exp(losses[1].mean()) - 1) < 1e-5, f"{kivi['perplexity']:.3f}")
    check("eval: log ratio", abs(kivi["log_ratio"] - (losses[1] - losses[0]).mean()) < 1e-6)
    same = (base.argmax(-1) == other.argmax(-1)).mean()
    check("eval: top-1", abs(kivi["top1"] - same) < 0.5 / 1023, f"{same:.4f}")
    quarter = np.arange(1023) * 4 // 1024
    for i in range(4):
        mean = divergence[quarter == i].mean()
        check(f"eval: quarter {i + 1}", abs(kivi["quarters"][i]["divergence"] - mean) < 1e-6 + 1e-4 * mean)
    check("eval: the control has no divergence", abs(control["divergence"]["largest"]) < 1e-6)


def main():
    if not PROGRAM or not os.path.exists(PROGRAM):
        print("NOT TESTED: KVCRUMB_LM names no program")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        scratch = pathlib.Path(folder)
        tokenizer_tests(scratch)
        model_tests(scratch)
        folders = [os.environ.get(name) for name in ("KVCRUMB_DATA_DIR", "KVCRUMB_REAL_DATA_DIR")]
        data = [pathlib.Path(f) for f in folders if f and (pathlib.Path(f) / "books16m").is_dir()]
        own = pathlib.Path(__file__).parents[2] / "examples" / "lm" / "books6m"
        books_tests(own, own / "heldout.txt", 0, None, scratch)
        if data:
            books_tests(data[0] / "books16m", data[0] / "books16m" / "heldout_frankenstein.txt", 81,
                        data[0] / "books16m_frankenstein_1024.safetensors", scratch)
        else:
            print("NOT TESTED on books16m: no such folder in $KVCRUMB_DATA_DIR or $KVCRUMB_REAL_DATA_DIR")
    print(f"{len(failures)} failures")
    return 1 if failures else 0 if data else 77


if __name__ == "__main__":
    sys.exit(main())
