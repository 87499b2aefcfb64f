"""A Llama decoder in numpy fp32, straight from a GGUF file.

It shares no code with the importer: the weights are read and dequantised by
the `gguf` package, and the rotary embedding works on GGUF's own row order
(neighbouring numbers are a pair, as in llama.cpp), so that a mistake in the
importer's reordering cannot hide here.

    llama_reference.py model.gguf tokens.json out.npy

writes the log-probabilities [positions, vocabulary] of the next token.
"""

import json
import sys

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize


class Llama:
    def __init__(self, path):
        reader = GGUFReader(path)
        self.w = {t.name: dequantize(t.data, t.tensor_type).astype(np.float32) for t in reader.tensors}

        def field(name, default=None):
            f = reader.fields.get("llama." + name)
            return default if f is None else f.contents()

        self.layers = field("block_count")
        self.heads = field("attention.head_count")
        self.kv_heads = field("attention.head_count_kv", self.heads)
        self.head_dim = field("attention.key_length", field("embedding_length") // self.heads)
        self.eps = np.float32(field("attention.layer_norm_rms_epsilon"))
        base = field("rope.freq_base", 10000.0)
        self.freqs = base ** (-2.0 * np.arange(self.head_dim // 2) / self.head_dim)
        if field("rope.scaling.type") == "linear":
            self.freqs = self.freqs / field("rope.scaling.factor")
        if "rope_freqs.weight" in self.w:
            self.freqs = self.freqs / self.w["rope_freqs.weight"].astype(np.float64)

    def norm(self, x, weight):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.w[weight]

    def linear(self, x, name):
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def rotate(self, x):
        """x is [positions, heads, head_dim]; pairs are neighbours."""
        angle = np.arange(x.shape[0])[:, None] * self.freqs[None]
        cos, sin = (f(angle).astype(np.float32)[:, None] for f in (np.cos, np.sin))
        a, b = x[..., 0::2], x[..., 1::2]
        out = np.empty_like(x)
        out[..., 0::2], out[..., 1::2] = a * cos - b * sin, a * sin + b * cos
        return out

    def attention(self, x, p):
        n = x.shape[0]
        q = self.rotate(self.linear(x, p + "attn_q").reshape(n, self.heads, self.head_dim))
        k = self.rotate(self.linear(x, p + "attn_k").reshape(n, self.kv_heads, self.head_dim))
        v = self.linear(x, p + "attn_v").reshape(n, self.kv_heads, self.head_dim)
        group = self.heads // self.kv_heads
        k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.float32(np.sqrt(self.head_dim))
        scores = np.where(np.tril(np.ones((n, n), bool)), scores, np.float32(-1e30))
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        out = np.einsum("hqk,khd->qhd", scores, v).reshape(n, -1)
        return self.linear(out, p + "attn_output")

    def feed_forward(self, x, p):
        gate = self.linear(x, p + "ffn_gate")
        return self.linear(gate / (1 + np.exp(-gate)) * self.linear(x, p + "ffn_up"), p + "ffn_down")

    def logprobs(self, tokens):
        """Log-probabilities of the token after each position, [n, vocabulary]."""
        x = self.w["token_embd.weight"][np.asarray(tokens)]
        for layer in range(self.layers):
            p = f"blk.{layer}."
            x = x + self.attention(self.norm(x, p + "attn_norm.weight"), p)
            x = x + self.feed_forward(self.norm(x, p + "ffn_norm.weight"), p)
        x = self.norm(x, "output_norm.weight")
        head = self.w["output.weight"] if "output.weight" in self.w else self.w["token_embd.weight"]
        return log_softmax(x @ head.T)


def log_softmax(logits):
    logits = logits.astype(np.float64)
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


if __name__ == "__main__":
    model, tokens, out = sys.argv[1:]
    with open(tokens, encoding="utf-8") as f:
        np.save(out, Llama(model).logprobs(json.load(f)))
