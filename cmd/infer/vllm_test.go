package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
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

// A kill of infer itself, which nothing can handle, leaves nobody of vLLM
// behind: neither what the kernel ends with infer, nor what it does not.
func TestKilledLeavesNothing(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	vllm := script(t, `sleep 1000 & sibling=$!
setsid sleep 1000 & far=$!
echo $$ $sibling $far >"$PIDS.new" && mv "$PIDS.new" "$PIDS"
exec sleep 1000
`)
	cmd := program(t, []string{"PIDS=" + pids, "PATH=" + os.Getenv("PATH")}, "--listen=127.0.0.1:0", "--engine=vllm", "--model=org/m", "--vllm-program", vllm)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var family []int
	wait(t, "vLLM's processes", func() bool {
		text, err := os.ReadFile(pids)
		if err != nil {
			return false
		}
		for _, f := range strings.Fields(string(text)) {
			pid, err := strconv.Atoi(f)
			if err != nil {
				t.Fatal(err)
			}
			family = append(family, pid)
		}
		return true
	})
	t.Cleanup(func() {
		for _, pid := range family {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it has gone, unless the test failed
		}
	})
	// The guard, who knows what to do from its first moment, is started after
	// vLLM, and the kill must not come between.
	wait(t, "the guard", func() bool { return children(t, cmd.Process.Pid) == 2 })
	if len(family) != 3 || !slices.ContainsFunc(family, runs) {
		t.Fatalf("vLLM's processes are %v", family)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	wait(t, "the end of vLLM's processes", func() bool { return !slices.ContainsFunc(family, runs) })
}

// wait asks until done is true.
func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); !done(); <-tick.C {
		if time.Since(began) > patience {
			t.Fatalf("%s did not come", what)
		}
	}
}

// runs says whether a process is there and no zombie, which is for somebody
// else to reap.
func runs(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	return err == nil && !strings.HasPrefix(rest, "Z")
}

// children counts the processes that pid has started.
func children(t *testing.T, pid int) int {
	t.Helper()
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err == nil { // the thread may have gone
			n += len(strings.Fields(string(text)))
		}
	}
	return n
}
