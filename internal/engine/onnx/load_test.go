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
		for changed := e.Changed(); e.Status().Phase != engine.Ready; changed = e.Changed() {
			select {
			case <-changed:
			case err := <-ended:
				b.Fatal(err)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			b.Fatal(err)
		}
	}
}
