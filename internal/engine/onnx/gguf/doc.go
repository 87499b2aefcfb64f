// Package gguf imports a GGUF file of the Llama architecture, without loss, as
// a folder in the ONNX Runtime GenAI convention: model.onnx with its weights
// in model.onnx.data, genai_config.json, tokenizer.json and
// tokenizer_config.json.
//
// "Without loss" means that the graph's weights are the file's weights, number
// by number. Nothing is quantised again, since a small model does not survive
// that. Where a GGUF block has the shape that ONNX Runtime's block-quantised
// operators take (Q4_0, Q8_0) its integers are only reordered. Q4_1, whose
// blocks have an offset, becomes a symmetric product plus a correction:
//
//	d*q + m = d*(q-8) + (m+8d)
//
// The first term is MatMulNBits with its default zero point, which is its fast
// path; the second is constant over a block of 32 inputs, so that its product
// is (sum of each block of x) times a small fp32 matrix, which one Gemm adds to
// the first. Floating point weights become fp32.
//
// For CUDA, Options.Float16 rounds what is not integer to fp16. There the
// integers stay exact, the scales were fp16 in the file, and only offsets,
// norms and activations are rounded.
//
// The reader is our own, about two hundred lines, because the input is not
// trusted: the published Go parsers size slices by counts that they read from
// the file. Here a count is believed only once the bytes that it promises are
// known to be in the file, arrays that nobody asked for are skipped, and every
// tensor's extent is checked before the first byte of output is written.
//
// Sources: the GGUF specification (ggml-org/ggml docs/gguf.md), the block
// layouts in ggml-common.h, llama.cpp's convert_hf_to_gguf.py for the row order
// of Q and K, ONNX Runtime's docs/ContribOperators.md for the operators, and
// the GenAI model builder for names and graph shape.
package gguf
