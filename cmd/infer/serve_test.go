package main

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestUsageExitsWith64AndTheTerminationLog(t *testing.T) {
	note := writeFile(t, "termination-log", "")
	code, stdout, stderr := exits(t, []string{"INFER_TERMINATION_LOG=" + note}, "--device=tpu")
	if code != exitUsage || stdout != "" {
		t.Errorf("exit code %d, stdout %q; want %d and nothing", code, stdout, exitUsage)
	}
	contains(t, stderr, "infer: ", "model: empty; pass a folder", `device: "tpu"`)
	if got, err := os.ReadFile(note); !strings.Contains(stderr, string(got)) || len(got) == 0 {
		t.Errorf("termination log %q, %v; want what stderr says:\n%s", got, err, stderr)
	}
}

func TestPortInUse(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	addr := ln.Addr().String()
	cache := filepath.Join(t.TempDir(), "cache")
	code, _, stderr := exits(t, nil, "--listen", addr, "--model", "anything", "--cache", cache)
	if code != exitRetry {
		t.Errorf("exit code %d, want %d", code, exitRetry)
	}
	contains(t, stderr, "listen: "+addr+" is in use", "choose another address with --listen")
	if _, err := os.Stat(cache); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the engine was started before the port was taken: %v", err)
	}
}

func TestAddressOfAnotherMachine(t *testing.T) {
	code, _, stderr := exits(t, nil, "--listen", "192.0.2.1:80", "--model", "anything")
	if code != exitUsage {
		t.Errorf("exit code %d, want %d", code, exitUsage)
	}
	contains(t, stderr, "listen: ", "choose an address of this machine")
}

// What cannot work is said in one line with its remedy, on stderr and where
// Kubernetes looks, and no port stays open.
func TestEngineThatCannotWork(t *testing.T) {
	empty := t.TempDir()
	for _, tt := range []struct {
		name  string
		args  []string
		wants []string
	}{
		{"no such model", []string{"--model", filepath.Join(empty, "absent.gguf")}, []string{"absent.gguf"}},
		{"a folder without a model", []string{"--model", empty}, []string{empty}},
		{"not a model", []string{"--model", writeFile(t, "x.gguf", "GGUF, but not really")}, []string{"x.gguf"}},
		{"no library", []string{"--model", writeFile(t, "y.gguf", ""), "--onnx-library", filepath.Join(empty, "lib.so")}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			note := writeFile(t, "termination-log", "")
			code, _, stderr := exits(t, nil, append(tt.args, "--listen=127.0.0.1:0", "--termination-log", note)...)
			if code != exitUnavailable {
				t.Errorf("exit code %d, want %d; stderr:\n%s", code, exitUnavailable, stderr)
			}
			_, last, _ := strings.Cut(stderr, "infer: ")
			contains(t, last, tt.wants...)
			got, err := os.ReadFile(note)
			if string(got) != last || strings.Count(last, "\n") != 1 || !strings.Contains(last, "; ") {
				t.Errorf("termination log %q, %v; want one line with a remedy, as on stderr: %q", got, err, last)
			}
		})
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	signals := make(chan os.Signal, 2)
	stopped := make(chan struct{})
	signals <- syscall.SIGTERM
	result := make(chan error, 1)
	go func() {
		result <- untilSignal(signals, func() { close(stopped) }, nil, slog.New(slog.DiscardHandler))
	}()
	<-stopped // the first drains, and nothing here ever ends
	signals <- syscall.SIGINT
	if got := exitCode(<-result); got != 130 {
		t.Errorf("exit code %d, want 130", got)
	}
}

func TestVersion(t *testing.T) {
	code, stdout, _ := exits(t, nil, "version")
	if code != 0 || !strings.HasPrefix(stdout, "infer ") {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
	code, stdout, _ = exits(t, nil, "version", "--json")
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	contains(t, stdout, `"version":"`, `"commit":"`, `"go":"go1.`)
}

func TestHelpNamesTheVariables(t *testing.T) {
	code, stdout, stderr := exits(t, nil, "serve", "--help")
	if code != 0 || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	contains(t, stdout, "$INFER_MAX_QUEUE", "$INFER_KV_BYTES", "$INFER_HOLD")
}
