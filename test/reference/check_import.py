"""Compare imported folders with the numpy reference.

Reads a JSON list of jobs from standard input and writes a JSON list of
results. A job has

    gguf     the source file
    folder   the import of it
    tokens   the text, as token ids
    chunk    positions per run; 1 feeds one token at a time through the cache
    batch    sequences per run: the text, rotated by 0, 1, 2 tokens
             and so on; the last one is compared

Every position whose logits the folder returns is compared: mean and p99 of
KL(reference || folder) in nats, and how often both rank the same token first.
"""

import functools
import json
import os
import sys

import numpy as np
import onnxruntime as ort
from llama_reference import Llama, log_softmax


@functools.lru_cache(maxsize=1)
def model(path):
    return Llama(path)


@functools.lru_cache(maxsize=1)
def reference(path, tokens):
    return model(path).logprobs(tokens)


def run(folder, rows, chunk):
    """Yields (position, log-probabilities) for all returned logits of the last row."""
    with open(os.path.join(folder, "genai_config.json"), encoding="utf-8") as f:
        d = json.load(f)["model"]["decoder"]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(
        os.path.join(folder, d["filename"]), options, providers=["CPUExecutionProvider"]
    )
    layers = range(d["num_hidden_layers"])
    pairs = [
        (d["inputs"][f"past_{kind}_names"].replace("%d", str(n)), d["outputs"][f"present_{kind}_names"].replace("%d", str(n)))
        for n in layers
        for kind in ("key", "value")
    ]
    kv = np.float16 if any("float16" in i.type for i in session.get_inputs()) else np.float32
    empty = np.zeros((len(rows), d["num_key_value_heads"], 0, d["head_size"]), kv)
    past = {name: empty for name, _ in pairs}
    names = [d["outputs"]["logits"]] + [present for _, present in pairs]
    for start in range(0, len(rows[0]), chunk):
        ids = np.array([row[start : start + chunk] for row in rows], np.int64)
        end = start + ids.shape[1]
        feeds = {d["inputs"]["input_ids"]: ids, d["inputs"]["attention_mask"]: np.ones((len(rows), end), np.int64)}
        out = session.run(names, feeds | past)
        past = {name: value for (name, _), value in zip(pairs, out[1:])}
        logits = out[0][-1]
        for i, row in enumerate(log_softmax(logits)):
            yield end - len(logits) + i, row


def compare(job):
    text = job["tokens"]
    rows = [text[n:] + text[:n] for n in range(job["batch"])]
    want = reference(job["gguf"], tuple(rows[-1]))
    kl, same = [], []
    for position, got in run(job["folder"], rows, job["chunk"]):
        w = want[position]
        kl.append(float((np.exp(w) * (w - got)).sum()))
        same.append(bool(w.argmax() == got.argmax()))
    return {
        "positions": len(kl),
        "mean_kl": float(np.mean(kl)),
        "p99_kl": float(np.quantile(kl, 0.99)),
        "top1": float(np.mean(same)),
    }


if __name__ == "__main__":
    json.dump([compare(job) for job in json.load(sys.stdin)], sys.stdout)
