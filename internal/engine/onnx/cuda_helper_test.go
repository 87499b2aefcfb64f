//go:build real || gpu

package onnx

import (
	"log/slog"
	"path/filepath"
	"testing"

	"infer/internal/engine/onnx/ort/orttest"
	"infer/internal/engine/onnx/tokenizer"
)

// cudaConfig runs the small real model on CUDA with the library in folder.
func cudaConfig(tb testing.TB, folder string) Config {
	cfg := realConfig(tb)
	cfg.Library, cfg.Device = filepath.Join(folder, orttest.Core), "cuda"
	return cfg
}

// openModelFor does what the engine does up to its scheduler.
func openModelFor(tb testing.TB, cfg Config, log *slog.Logger) (*model, *tokenizer.Tokenizer, error) {
	tb.Helper()
	e, err := New(cfg, log)
	if err != nil {
		tb.Fatal(err)
	}
	lib, err := openLibrary(cfg, log)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(lib.Close)
	dev, err := chooseDevice(cfg, lib, log)
	if err != nil {
		return nil, nil, err
	}
	dir, err := e.folder(tb.Context(), dev)
	if err != nil {
		return nil, nil, err
	}
	gc, err := readFolder(dir)
	if err != nil {
		return nil, nil, err
	}
	m, err := e.openModel(lib, dir, gc, dev)
	if err != nil {
		return nil, nil, err
	}
	tb.Cleanup(m.close)
	tok, err := tokenizer.Load(dir)
	return m, tok, err
}
