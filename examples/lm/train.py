#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a small Llama-type model on text files and writes it as kvcrumb-lm (and Hugging Face) reads it.

    python3 train.py --tiny --output tiny TEXT...                 two million parameters, minutes on two CPU cores
    python3 train.py --size 6m --minutes 90 --output m TEXT...    an hour and a half on two cores with AMX
    python3 train.py --size 60m --minutes 30 --output m TEXT...   for a GPU
    python3 train.py --size 60m --output m --prepare TEXT...      only the tokens; then train without naming texts
    python3 train.py --size 6m --output m --write-int8            8-bit weights of a checkpoint; trains nothing

Needs PyTorch and the package `tokenizers`. The last --held-out characters of each file are not trained on; they are
written to OUTPUT/heldout.txt. Every training sequence begins with the token <bos>, which is what lets a model that is
trained for long grow an attention sink there.

Writes tokens.bin (the texts as 16-bit token numbers), config.json, tokenizer.json (byte-level BPE; one that is there is
kept with --resume and --prepare), model.safetensors (fp16), training.json (loss and sinks while training) and
checkpoint.pt, from which --resume goes on.
"""
import argparse
import json
import pathlib
import struct
import time

import torch
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SIZES = {  # hidden, layers, query heads, kv heads, head dimension, intermediate, vocabulary, context, batch
    "tiny": (192, 4, 4, 2, 64, 512, 2048, 256, 16),
    "6m": (256, 8, 4, 2, 64, 512, 4096, 1024, 4),
    "30m": (512, 10, 4, 2, 128, 1408, 8192, 2048, 8),
    "60m": (640, 12, 10, 5, 64, 1792, 8192, 2048, 48),
    "100m": (768, 14, 12, 4, 64, 2048, 16384, 2048, 32),
}
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("texts", nargs="*", type=pathlib.Path, metavar="TEXT")
    p.add_argument("--output", required=True, type=pathlib.Path)
    p.add_argument("--size", choices=SIZES, default="60m")
    p.add_argument("--tiny", action="store_true", help="--size tiny")
    p.add_argument("--minutes", type=float, default=5.0, help="of training; the learning rate follows this clock: the wall's with "
                   "a GPU, without one the processor's, which stands still while the program is stopped")
    p.add_argument("--rate", type=float, default=1e-3, help="largest learning rate")
    p.add_argument("--decay", type=float, default=0.3, help="share of the time, at the end, in which the rate falls to 0")
    p.add_argument("--resume", action="store_true", help="go on from OUTPUT/checkpoint.pt, for --minutes more")
    p.add_argument("--prepare", action="store_true", help="only write tokens.bin, tokenizer.json and heldout.txt")
    p.add_argument("--write-int8", action="store_true",
                   help="only write model.safetensors anew, from checkpoint.pt: matrices as 8-bit integers with a scale for "
                   "each row, as compressed-tensors does (but the embedding too)")
    p.add_argument("--held-out", type=int, default=50000, help="characters at the end of each file")
    p.add_argument("--qk-norm", action="store_true", help="a Qwen3 model: norms of queries and keys")
    p.add_argument("--bias", action="store_true", help="a Qwen2 model: biases of queries, keys and values")
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    if a.qk_norm and a.bias:
        p.error("--qk-norm and --bias exclude each other")
    if a.texts and a.write_int8:
        p.error("--write-int8 reads no texts")
    if not a.texts and not a.write_int8 and (a.prepare or not (a.output / "tokens.bin").exists()):
        p.error("name texts to train on, or --write-int8")
    if a.tiny:
        a.size = "tiny"
    return a


def train_tokenizer(texts, vocabulary):
    t = Tokenizer(models.BPE())
    t.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    t.decoder = decoders.ByteLevel()
    t.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=["<bos>"], show_progress=False,
                            initial_alphabet=pre_tokenizers.ByteLevel.alphabet()),
    )  # fmt: skip
    return t


class Norm(torch.nn.Module):
    def __init__(self, width, epsilon=1e-5):
        super().__init__()
        self.weight, self.epsilon = torch.nn.Parameter(torch.ones(width)), epsilon

    def forward(self, x):
        return x * torch.rsqrt(x.float().square().mean(-1, keepdim=True) + self.epsilon).type_as(x) * self.weight


def rotate(x, cosine, sine):  # [batch][head][token][dim]
    a, b = x.chunk(2, -1)
    return torch.cat([a * cosine - b * sine, b * cosine + a * sine], -1)


class Layer(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        hidden, dim, inner = c["hidden_size"], c["head_dim"], c["intermediate_size"]
        self.heads, self.kv_heads, self.dim = c["num_attention_heads"], c["num_key_value_heads"], dim
        self.input_layernorm, self.post_attention_layernorm = Norm(hidden), Norm(hidden)
        bias, linear = c["model_type"] == "qwen2", torch.nn.Linear
        self.self_attn = torch.nn.ModuleDict({
            "q_proj": linear(hidden, self.heads * dim, bias), "k_proj": linear(hidden, self.kv_heads * dim, bias),
            "v_proj": linear(hidden, self.kv_heads * dim, bias), "o_proj": linear(self.heads * dim, hidden, False),
        })  # fmt: skip
        if c["model_type"] == "qwen3":
            self.self_attn.update({"q_norm": Norm(dim), "k_norm": Norm(dim)})
        self.mlp = torch.nn.ModuleDict({
            "gate_proj": linear(hidden, inner, False), "up_proj": linear(hidden, inner, False),
            "down_proj": linear(inner, hidden, False),
        })  # fmt: skip

    def rows(self, x, cosine, sine):
        """Queries, keys and values as they enter attention, [batch][head][token][dim]."""
        a, h, (batch, tokens, _) = self.self_attn, self.input_layernorm(x), x.shape
        q, k, v = (a[n](h).view(batch, tokens, -1, self.dim).transpose(1, 2) for n in ("q_proj", "k_proj", "v_proj"))
        if "q_norm" in a:
            q, k = a["q_norm"](q), a["k_norm"](k)
        return rotate(q, cosine, sine), rotate(k, cosine, sine), v

    def forward(self, x, cosine, sine):
        a, m, (batch, tokens, _) = self.self_attn, self.mlp, x.shape
        q, k, v = self.rows(x, cosine, sine)
        repeat = self.heads // self.kv_heads
        if q.is_cuda:
            o = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            o = F.scaled_dot_product_attention(q, k.repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1), is_causal=True)
        x = x + a["o_proj"](o.transpose(1, 2).reshape(batch, tokens, -1))
        h = self.post_attention_layernorm(x)
        return x + m["down_proj"](F.silu(m["gate_proj"](h)) * m["up_proj"](h))


class Model(torch.nn.Module):
    def __init__(self, c):
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(c["vocab_size"], c["hidden_size"])
        self.layers = torch.nn.ModuleList(Layer(c) for _ in range(c["num_hidden_layers"]))
        self.norm = Norm(c["hidden_size"])
        for name, p in self.named_parameters():
            if p.dim() == 2:
                deep = (2 * c["num_hidden_layers"]) ** -0.5 if name.endswith(("o_proj.weight", "down_proj.weight")) else 1
                torch.nn.init.normal_(p, 0, 0.02 * deep)
            elif name.endswith("bias"):
                torch.nn.init.zeros_(p)
        frequency = c["rope_theta"] ** (-torch.arange(0, c["head_dim"], 2) / c["head_dim"])
        angles = torch.outer(torch.arange(c["max_position_embeddings"]), frequency)
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, tokens):
        x, n = self.embed_tokens(tokens), tokens.shape[1]
        cosine, sine = self.cosine[:n].type_as(x), self.sine[:n].type_as(x)
        for layer in self.layers:
            x = layer(x, cosine, sine)
        return self.norm(x)

    def losses(self, x, targets):
        """Mean cross entropy of the predictions from what forward() returns; the embedding is tied."""
        return F.cross_entropy(F.linear(x, self.embed_tokens.weight).float().flatten(0, 1), targets.flatten())

    @torch.no_grad()
    def sinks(self, tokens):
        """Per layer: attention that queries 64, ... pay to token 0 (mean), L1 norms of its key and value over the median
        token's (smallest of the heads), largest |activation| of token 0 over the median token's."""
        x, n, result = self.embed_tokens(tokens), tokens.shape[1], []
        cosine, sine = self.cosine[:n], self.sine[:n]
        for layer in self.layers:
            q, k, v = layer.rows(x, cosine, sine)
            scores = q @ k.repeat_interleave(layer.heads // layer.kv_heads, 1).transpose(-1, -2) * layer.dim**-0.5
            later = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
            paid = scores.masked_fill(later, -torch.inf).softmax(-1)[:, :, 64:, 0].mean()
            norms = [(r.abs().sum(-1)[:, :, 0] / r.abs().sum(-1).median(-1).values).min() for r in (k, v)]
            peak = x.abs().amax(-1)
            result.append([round(float(f), 3) for f in (paid, *norms, (peak[:, 0] / peak.median(-1).values).mean())])
            x = layer.forward(x, cosine, sine)  # not the compiled one
        return result


def write_weights(folder, weights, int8=False):
    header, parts, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, p in weights:
        p = p.detach().float().cpu()
        pieces = [("", "F16", p.half())]
        if int8 and p.dim() == 2:
            scale = p.abs().amax(1, keepdim=True).clamp(min=1e-8) / 127
            pieces = [("", "I8", (p / scale).round().to(torch.int8)), ("_scale", "F32", scale)]
        for ending, dtype, values in pieces:
            part = values.contiguous().numpy().tobytes()
            header["model." + name + ending] = {
                "dtype": dtype, "shape": list(values.shape), "data_offsets": [at, at + len(part)]}  # fmt: skip
            at += len(part)
            parts.append(part)
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text + b"".join(parts))


def write(folder, config, model):
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    write_weights(folder, model.named_parameters())


def write_int8(folder):
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {
        "quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
        "config_groups": {"group_0": {
            "targets": ["Linear", "Embedding"], "input_activations": None, "output_activations": None,
            "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel"}}},
    }  # fmt: skip
    weights = torch.load(folder / "checkpoint.pt", map_location="cpu")["model"]
    write_weights(folder, weights.items(), int8=True)
    (folder / "config.json").write_text(json.dumps(config, indent=1))


def pieces(text, size=100_000):
    """The text in pieces that end with a blank line, where one is."""
    begin = 0
    while begin < len(text):
        end = text.rfind("\n\n", begin, begin + size) + 2 if begin + size < len(text) else len(text)
        end = end if end > begin + 1 else begin + size
        yield text[begin:end]
        begin = end


def corpus(a, vocabulary):
    """The tokenizer and the tokens of all texts, which are kept in the folder of the model."""
    a.output.mkdir(parents=True, exist_ok=True)
    if a.texts:
        texts = [t.read_text(encoding="utf-8") for t in a.texts]
        held_out = "".join(t[max(0, len(t) - a.held_out) :] for t in texts)
        texts = [t[: max(0, len(t) - a.held_out)] for t in texts]
        kept = a.output / "tokenizer.json"
        if (a.resume or a.prepare) and kept.exists():
            tokenizer = Tokenizer.from_file(str(kept))
        else:
            tokenizer = train_tokenizer(texts[:: max(1, sum(map(len, texts)) // 20_000_000)], vocabulary)
            tokenizer.save(str(kept))
        (a.output / "heldout.txt").write_text(held_out, encoding="utf-8")
        with open(a.output / "tokens.bin", "wb") as file:  # a vocabulary of at most 32,768
            for t in texts:
                for e in tokenizer.encode_batch(list(pieces(t))):
                    file.write(torch.tensor(e.ids, dtype=torch.int16).numpy().tobytes())
    else:
        tokenizer = Tokenizer.from_file(str(a.output / "tokenizer.json"))
    return tokenizer, torch.from_file(str(a.output / "tokens.bin"), dtype=torch.int16,
                                      size=(a.output / "tokens.bin").stat().st_size // 2)  # fmt: skip


def main():
    a = arguments()
    if a.write_int8:
        return write_int8(a.output)
    torch.manual_seed(a.seed)
    hidden, layers, heads, kv_heads, dim, inner, vocabulary, context, batch = SIZES[a.size]
    tokenizer, tokens = corpus(a, vocabulary)
    if a.prepare:
        return print(f"{len(tokens)} tokens, vocabulary {tokenizer.get_vocab_size()}")
    if len(tokens) <= context:
        raise SystemExit(f"{len(tokens)} tokens are too few for sequences of {context}")
    config = {
        "model_type": "qwen3" if a.qk_norm else "qwen2" if a.bias else "llama", "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": dim, "intermediate_size": inner, "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "tie_word_embeddings": True, "max_position_embeddings": context, "bos_token_id": 0, "torch_dtype": "float16",
    }  # fmt: skip
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = Model(config).to(device)
    decayed = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}], lr=a.rate, betas=(0.9, 0.95),
        fused=True)  # fmt: skip
    step, curve = 0, []
    if a.resume:
        state = torch.load(a.output / "checkpoint.pt", map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, curve = state["step"], state["curve"]
        torch.manual_seed(a.seed + step)
    losses = model.losses
    if device == "cuda":  # piece by piece: the layers share their code
        for layer in model.layers:
            layer.compile()
        losses = torch.compile(losses)
        tokens = tokens.to(device)
    elif a.size != "tiny":
        model.compile()
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters / 1e6:.1f} M parameters, {len(tokens)} tokens, {device}", flush=True)
    write(a.output, config, model)
    clock = time.monotonic if device == "cuda" else lambda: time.process_time() / torch.get_num_threads()
    probe = F.pad(tokens[: context - 1], (1, 0)).long()[None].to(device)
    start, shown, saved, mean = clock(), 0.0, clock(), None

    def save():
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step, "curve": curve},
                   a.output / "checkpoint.pt")  # fmt: skip
        (a.output / "training.json").write_text(json.dumps(
            {"parameters": parameters, "tokens_a_step": batch * context, "columns": ["step", "loss", "sinks"], "curve": curve}))

    while (share := (clock() - start) / (60 * a.minutes)) < 1:
        warm = 1 if a.resume else min(1, (step + 1) / 200)
        for group in optimizer.param_groups:
            group["lr"] = max(a.rate * warm * min(1, (1 - share) / a.decay), 1e-6)
        begin = torch.randint(len(tokens) - context + 1, (batch, 1), device=tokens.device)
        rows = tokens[begin + torch.arange(context, device=tokens.device)].long().to(device)
        first = torch.cat([torch.zeros_like(rows[:, :1]), rows[:, :-1]], 1)  # <bos> and the sequence
        with torch.autocast(device, torch.bfloat16, enabled=a.size != "tiny"):
            loss = losses(model(first), rows)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        mean = loss.detach() if mean is None else torch.lerp(mean, loss.detach(), 0.01)  # no waiting for the device
        if step % 250 == 0:
            curve.append([step, round(float(mean), 4), model.sinks(probe)])
        if clock() - shown > 20:
            shown = clock()
            paid = " ".join(f"{s[0]:.2f}/{s[1]:.2f}" for s in curve[-1][2]) if curve else ""
            print(f"{100 * share:3.0f} %  step {step}  loss {float(mean):.3f}  token 0: attention / key norm {paid}", flush=True)
        if clock() - saved > 300:
            saved = clock()
            save()
    save()
    write(a.output, config, model)
    print(f"{step} steps of {batch * context} tokens; the model is in {a.output}")


if __name__ == "__main__":
    main()
