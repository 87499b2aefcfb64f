package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"infer/internal/engine"
)

func TestExitCode(t *testing.T) {
	cause := errors.New("cause")
	for _, tt := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{usageError{cause}, 64},
		{&engine.Failure{Cause: engine.CauseModelInvalid}, 69},
		{fmt.Errorf("wrapped: %w", &engine.Failure{}), 69},
		{unavailableError{cause}, 69},
		{cause, 70},
		{&engine.Failure{Cause: engine.CauseEngineFault, Retryable: true}, 75},
		{retryError{cause}, 75},
		{serverError{status: 400}, 64},
		{serverError{status: 429}, 75},
		{serverError{status: 503}, 75},
		{serverError{status: 500}, 69},
		{serverError{}, 69},
		{signalError{syscall.SIGINT}, 130},
		{signalError{syscall.SIGTERM}, 143},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("exitCode(%#v) = %d, want %d", tt.err, got, tt.want)
		}
	}
}

func TestTerminationLog(t *testing.T) {
	path := writeFile(t, "termination-log", "an older and longer text\n")
	noteTermination(path, &engine.Failure{Message: "no model", Remedy: "mount one"})
	if got, err := os.ReadFile(path); string(got) != "no model; mount one\n" {
		t.Errorf("got %q, %v", got, err)
	}
	absent := filepath.Join(t.TempDir(), "absent")
	noteTermination(absent, errors.New("x"))
	if _, err := os.Stat(absent); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file was created: %v", err)
	}
}
