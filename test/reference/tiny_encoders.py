"""Writes the tiny graphs that internal/engine/onnx/encoder is tested with.

    python3 -m venv venv && venv/bin/pip install onnx==1.23.2
    venv/bin/python tiny_encoders.py ../../internal/engine/onnx/encoder/testdata/tiny

Each token has a row of a table; its vocabulary is [PAD] [UNK] [CLS] [SEP] [MASK] good bad paris. What comes out is that
row, or sums of rows, so that a test can say what to expect.
"""

import pathlib
import sys

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save

INT64, FLOAT, FLOAT16, BFLOAT16 = TensorProto.INT64, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16
ROWS = np.array([[0, 9], [0, 0], [1, 0], [0, 1], [0, 0], [2, -2], [-2, 2], [4, 0]], np.float32)


def graph(path, inputs, output, kind, nodes, table=ROWS):
    made = [helper.make_tensor_value_info(n, INT64, ["batch", "sequence"]) for n in inputs]
    shape = ["batch", "sequence", "size"] if nodes[-1].op_type == "Cast" else ["batch", "size"]
    out = helper.make_tensor_value_info(output, kind, shape)
    axes = [numpy_helper.from_array(np.array([n], np.int64), name) for n, name in ((1, "one"), (2, "two"))]
    body = helper.make_graph(nodes, "tiny", made, [out], [numpy_helper.from_array(table, "table")] + axes)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    checker.check_model(model)
    save(model, path)


def tokenwise(kind, name="last_hidden_state"):
    return [helper.make_node("Gather", ["table", "input_ids"], ["rows"]), helper.make_node("Cast", ["rows"], [name], to=kind)]


def summed(weight, name):
    """The sum of the rows of tokens, each times what the input called weight says."""
    return [
        helper.make_node("Gather", ["table", "input_ids"], ["rows"]),
        helper.make_node("Cast", [weight], ["weight"], to=FLOAT),
        helper.make_node("Unsqueeze", ["weight", "two"], ["column"]),
        helper.make_node("Mul", ["rows", "column"], ["weighed"]),
        helper.make_node("ReduceSum", ["weighed", "one"], [name], keepdims=0),
    ]


def main(out):
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    three = ["input_ids", "attention_mask", "token_type_ids"]
    graph(out / "hidden.onnx", three[:1], "last_hidden_state", FLOAT, tokenwise(FLOAT))
    graph(out / "half.onnx", three[:2], "last_hidden_state", FLOAT16, tokenwise(FLOAT16))
    graph(out / "bfloat.onnx", three[:1], "token_embeddings", BFLOAT16, tokenwise(BFLOAT16, "token_embeddings"))
    graph(out / "double.onnx", three[:1], "last_hidden_state", TensorProto.DOUBLE, tokenwise(TensorProto.DOUBLE))
    graph(out / "sentence.onnx", three, "sentence_embedding", FLOAT, summed("attention_mask", "sentence_embedding"))
    graph(out / "classes.onnx", three, "logits", FLOAT, summed("attention_mask", "logits"))
    graph(out / "cross.onnx", three, "logits", FLOAT, summed("token_type_ids", "logits"), ROWS[:, :1])  # the second text counts
    graph(out / "both.onnx", three, "logits", FLOAT, summed("attention_mask", "logits"), ROWS[:, :1])  # both texts do
    graph(out / "nan.onnx", three[:1], "last_hidden_state", FLOAT, tokenwise(FLOAT), ROWS * np.float32("nan"))
    graph(out / "decoder.onnx", three + ["past"], "logits", FLOAT, summed("past", "logits"))


if __name__ == "__main__":
    main(*sys.argv[1:])
