package main

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// script is a program that stands in for vllm.
func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vllm")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVLLMThatCannotWork(t *testing.T) {
	srv, url := elsewhere(t)
	defer srv()
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"no program", []string{"--vllm-program=/no/such/vllm", "--model=org/m"}, "--vllm-url"},
		{"no folder", []string{"--vllm-program", script(t, "exit 1"), "--model=/no/such/model"}, "/no/such/model"},
		{"a folder without graphs", []string{"--vllm-program=/no/such/vllm", "--model", t.TempDir()}, "--vllm-program"},
		{"unknown flag", []string{"--model=org/m", "--vllm-program", script(t, `echo "vllm serve: error: unrecognized arguments: $*" >&2; exit 2`), "--", "--no-such", "-x"}, "--no-such -x; correct the flags after --"},
		{"another server", []string{"--vllm-url", url}, "check --vllm-url"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			note := writeFile(t, "termination-log", "")
			code, _, stderr := exits(t, nil, append([]string{"--listen=127.0.0.1:0", "--termination-log", note}, tt.args...)...)
			if code != exitUnavailable {
				t.Errorf("exit code %d, want %d; stderr:\n%s", code, exitUnavailable, stderr)
			}
			_, last, _ := strings.Cut(stderr, "infer: ")
			contains(t, last, tt.want)
			if got, err := os.ReadFile(note); string(got) != last || strings.Count(last, "\n") != 1 {
				t.Errorf("termination log %q, %v; want one line as on stderr: %q", got, err, last)
			}
		})
	}
}

// elsewhere is a server that is no vLLM.
func elsewhere(t *testing.T) (stop func(), url string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler()}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	return func() { _ = srv.Close(); wg.Wait() }, "http://" + ln.Addr().String()
}

func TestVLLMFaultsComeTogether(t *testing.T) {
	env := []string{"GPU_MEMORY_UTILIZATION=most", "MAX_MODEL_LEN=4k"}
	code, _, stderr := exits(t, env, "--model=org/m", "--stall-timeout=0s", "--lora=x", "--", "--port", "1", "--uds=/x")
	if code != exitUsage {
		t.Errorf("exit code %d, want %d", code, exitUsage)
	}
	contains(t, stderr, "GPU_MEMORY_UTILIZATION", "MAX_MODEL_LEN", "stall-timeout", "lora: ", "--port", "--uds")
	code, _, stderr = exits(t, nil, "--model=x.gguf", "--", "--max-num-seqs=8")
	if code != exitUsage {
		t.Errorf("exit code %d, want %d", code, exitUsage)
	}
	contains(t, stderr, "arguments after -- are for vllm")
}

func TestAutoChoosesTheEngine(t *testing.T) {
	folder, graphs := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(graphs, "model.onnx"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ model, url, want string }{
		{"Qwen/Qwen3-0.6B", "", "vllm"}, {folder, "", "vllm"}, {graphs, "", "onnx"}, {"x.gguf", "", "onnx"},
		{"", "", "onnx"}, {"", "http://127.0.0.1:8000", "vllm"},
	} {
		c := serveCmd{Engine: "auto", Model: tt.model, VLLM: vllmFlags{URL: tt.url}}
		if got := c.chosen(); got != tt.want {
			t.Errorf("chosen() of %q, %q = %s, want %s", tt.model, tt.url, got, tt.want)
		}
	}
}

func TestSeedVariables(t *testing.T) {
	c, _, err := parse(in(map[string]string{"MODEL_NAME": "org/m", "GPU_MEMORY_UTILIZATION": "0.85", "MAX_MODEL_LEN": "4096",
		"VLLM_API_KEY": "k", "HOME": t.TempDir()}, "serve", "--lora", "a=org/a,b", "--", "--dtype", "half", "--"))
	if err != nil {
		t.Fatal(err)
	}
	got := c.Serve.vllm()
	if got.Model != "org/m" || got.MemoryUtilization != 0.85 || got.MaxModelLen != 4096 || got.Key != "k" ||
		strings.Join(got.Args, " ") != "--dtype half --" || strings.Join(got.LoRA, " ") != "a=org/a,b" {
		t.Errorf("%+v", got)
	}
}
