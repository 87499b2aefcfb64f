package onnx

import (
	"context"
	"testing"

	"infer/internal/engine"
)

// BenchmarkLoad is the time from New to Ready with an imported model.
func BenchmarkLoad(b *testing.B) {
	cfg := realConfig(b)
	for b.Loop() {
		e, err := New(cfg, quiet)
		if err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan error, 1)
		go func() { ended <- e.Run(ctx) }()
		until(b, e, engine.Ready)
		cancel()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}
}
