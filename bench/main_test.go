package main

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseSettings(t *testing.T) {
	got, err := parseSettings("1,2,2+spin")
	if want := "[1 thread 2 threads 2 threads, spinning]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("parseSettings = %v, %v, want %s", got, err, want)
	}
	for _, text := range []string{"", "0", "-1", "two", "2+", "2,,1", "+spin"} {
		if got, err := parseSettings(text); err == nil {
			t.Errorf("parseSettings(%q) = %v, want an error", text, got)
		}
	}
}

func TestParseConfigReportsAllFaults(t *testing.T) {
	_, err := parseConfig([]string{"--settings", "x", "--repeats", "0", "--prompt", "9999", "--streams", "1", "rest"},
		func(string) string { return "" }, io.Discard)
	if err == nil {
		t.Fatal("nothing was wrong")
	}
	for _, want := range []string{"settings: ", "--repeats: ", "--prompt: ", "--streams: ", "--context: ", "--model: ", "--library: ", "--llama: ", `"rest"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q: %v", want, err)
		}
	}
}

func TestParseConfigTakesPathsOfTheEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"INFER_TEST_MODEL_GGUF": file, "INFER_TEST_ONNXRUNTIME": file}
	c, err := parseConfig([]string{"--infer", file, "--llama", file, "--cache", "/c"}, func(name string) string { return env[name] }, io.Discard)
	if err != nil || c.model != file || c.library != file || c.cache != "/c" {
		t.Errorf("parseConfig = %+v, %v", c, err)
	}
}

func TestStoriesDiffer(t *testing.T) {
	rng := newRNG(1)
	seen := map[string]bool{}
	for range 100 {
		text := story(rng, 256)
		words := strings.Fields(text)
		if len(words) < 256 {
			t.Fatalf("a story of %d words, want at least 256", len(words))
		}
		if begin := strings.Join(words[:5], " "); seen[begin] {
			t.Errorf("two stories begin with %q", begin)
		} else {
			seen[begin] = true
		}
	}
}

func newRNG(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0)) }
