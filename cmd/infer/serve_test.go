package main

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
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
	t.Cleanup(func() { _ = ln.Close() })
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
	library := fromMake(t, "INFER_TEST_ONNXRUNTIME")
	for _, tt := range []struct {
		name, model, library, want string
	}{
		{"no such model", filepath.Join(empty, "absent.gguf"), library, "absent.gguf"},
		{"a folder without a model", empty, library, empty},
		{"not a model", writeFile(t, "x.gguf", "GGUF, but not really"), library, "x.gguf"},
		{"no library", fromMake(t, "INFER_TEST_MODEL_GGUF"), filepath.Join(empty, "lib.so"), "lib.so"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			note := writeFile(t, "termination-log", "")
			code, _, stderr := exits(t, nil, "--engine=onnx", "--model", tt.model, "--onnx-library", tt.library,
				"--listen=127.0.0.1:0", "--termination-log", note)
			if code != exitUnavailable {
				t.Errorf("exit code %d, want %d; stderr:\n%s", code, exitUnavailable, stderr)
			}
			_, last, _ := strings.Cut(stderr, "infer: ")
			contains(t, last, tt.want)
			got, err := os.ReadFile(note)
			if string(got) != last || strings.Count(last, "\n") != 1 || !strings.Contains(last, "; ") {
				t.Errorf("termination log %q, %v; want one line with a remedy, as on stderr: %q", got, err, last)
			}
		})
	}
}

// The first probe is answered while the model still loads, and a stop in that
// moment is a clean one.
func TestAnswersBeforeTheModelIsThere(t *testing.T) {
	s := &served{t: t, args: []string{"--listen=127.0.0.1:0", "--model", fromMake(t, "INFER_TEST_MODEL_GGUF"),
		"--onnx-library", fromMake(t, "INFER_TEST_ONNXRUNTIME"), "--device=cpu"}}
	s.start() // without a cache: the model is imported first
	resp, err := http.Get(s.url + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable || err != nil {
		t.Errorf("HTTP %d %s, %v; want 503 while the model loads", resp.StatusCode, body, err)
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v, want a clean stop", err)
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
