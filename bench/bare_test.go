package main

import "testing"

// TestBareFitsTheEngine compiles the file that is laid over the engine's
// package: nothing else would notice when the engine leaves it behind.
func TestBareFitsTheEngine(t *testing.T) {
	if _, err := buildBare(t.Context(), "..", t.TempDir(), t.Output()); err != nil {
		t.Error(err)
	}
}

func TestBuildBareNamesTheRemedy(t *testing.T) {
	if _, err := buildBare(t.Context(), t.TempDir(), t.TempDir(), t.Output()); err == nil {
		t.Error("an empty folder was taken for the checkout")
	}
}
