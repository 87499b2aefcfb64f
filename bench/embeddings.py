"""The reference of the embeddings suite: an encoder in Python's onnxruntime.

    python embeddings.py FOLDER THREADS SPIN

It takes orders on its standard input and replies on its standard output, a line of JSON each: see embedder in
embeddings.go. A vector is the mean of the last hidden states of its text, scaled to length 1, as all-MiniLM wants it.
"""

import json
import sys

import numpy
import onnxruntime
from tokenizers import BertWordPieceTokenizer

MAX_TOKENS = 256  # of all-MiniLM's sentence_bert_config.json


class Encoder:
    def __init__(self, folder, threads, spin):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", spin)
        self.session = onnxruntime.InferenceSession(f"{folder}/model.onnx", options, providers=["CPUExecutionProvider"])
        self.names = [i.name for i in self.session.get_inputs()]
        self.tokenizer = BertWordPieceTokenizer(f"{folder}/vocab.txt", lowercase=True)
        self.tokenizer.enable_truncation(MAX_TOKENS)
        self.tokenizer.enable_padding()

    def vectors(self, texts):
        encoded = self.tokenizer.encode_batch(texts)
        arrays = {
            "input_ids": numpy.array([e.ids for e in encoded], dtype=numpy.int64),
            "attention_mask": numpy.array([e.attention_mask for e in encoded], dtype=numpy.int64),
            "token_type_ids": numpy.array([e.type_ids for e in encoded], dtype=numpy.int64),
        }
        hidden = self.session.run(None, {name: arrays[name] for name in self.names})[0]
        mask = arrays["attention_mask"][:, :, None].astype(numpy.float32)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return mean / numpy.linalg.norm(mean, axis=1, keepdims=True)


def main(folder, threads, spin):
    encoder = Encoder(folder, int(threads), spin)
    for line in sys.stdin:
        order = json.loads(line)
        reply = {"error": ""}
        try:
            vectors = encoder.vectors(order["texts"])
            if order["op"] == "vector":
                reply["vector"] = vectors[0].tolist()
        except Exception as e:  # the one who gave the order reports it
            reply["error"] = repr(e)
        print(json.dumps(reply), flush=True)


main(*sys.argv[1:])
