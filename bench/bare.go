package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// Where the bare engine's source is, and where it is laid over the tree.
const (
	bareSource  = "bench/_bare/bare_test.go"
	bareOverlay = "internal/engine/onnx/bench_bare_test.go"
)

// buildBare compiles the bare engine of the checkout at root into folder, so
// that what is measured is what is checked out, and returns its path.
func buildBare(ctx context.Context, root, folder string, stderr io.Writer) (string, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return "", fmt.Errorf("find checkout: %w", err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(root, bareOverlay): filepath.Join(root, bareSource)},
	})
	if err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	list, program := filepath.Join(folder, "overlay.json"), filepath.Join(folder, "bare.test")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		return "", fmt.Errorf("write overlay: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", list, "-o", program, "./"+filepath.Dir(bareOverlay))
	cmd.Dir, cmd.Stdout, cmd.Stderr = root, stderr, stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build the bare engine: %w; name the checkout with --root, and when it is that, fit %s to the engine", err, bareSource)
	}
	return program, nil
}

// bareConfig is the part of the engine's Config that the benchmark sets.
type bareConfig struct {
	Model         string
	Library       string
	Device        string
	CacheDir      string
	Slots         int
	ContextTokens int
	Threads       int
	Spin          bool
	AccuracyLevel int
}

// startBare runs what buildBare built.
func startBare(ctx context.Context, program string, c bareConfig, stderr io.Writer) (*piped, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, errors.Join(errors.New("write configuration"), err)
	}
	return startPiped(ctx, stderr, []string{"INFER_BENCH_BARE=" + string(text)}, program, "-test.run=^TestBare$", "-test.timeout=0")
}
