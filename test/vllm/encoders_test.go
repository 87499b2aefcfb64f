//go:build real

package vllm

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Encoders answer through infer what they answer themselves, to the number. The
// weights are random: it is the way there that is tested.
func TestRealEncoders(t *testing.T) {
	for name, tt := range map[string]struct {
		labels   string
		requests map[string]string // bodies by path
		lacks    string
	}{
		"embeds": {"0", map[string]string{
			"/v1/embeddings": `{"model":"m","input":["hello","another text"]}`,
			"/pooling":       `{"model":"m","input":"hello"}`,
			"/v1/score":      `{"model":"m","text_1":"hello","text_2":["hello","another"]}`,
			"/v1/rerank":     `{"model":"m","query":"hello","documents":["another","hello"]}`,
			"/v2/rerank":     `{"model":"m","query":"hello","documents":["another","hello"],"top_n":1}`,
			"/tokenize":      `{"model":"m","prompt":"hello"}`,
		}, "/v1/chat/completions"},
		"classifies": {"3", map[string]string{
			"/classify": `{"model":"m","input":["hello","another text"]}`,
			"/pooling":  `{"model":"m","task":"classify","input":"hello"}`,
		}, "/v1/embeddings"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "v") // a socket's path must be short
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			vllm, socket, model := fromMake(t, "INFER_TEST_VLLM"), filepath.Join(dir, "s"), filepath.Join(dir, "model")
			build := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(vllm), "python"), "encoder.py", fromMake(t, "INFER_TEST_EMBEDDING_MODEL"), model, tt.labels)
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("encoder.py: %v\n%s", err, out)
			}
			sidecar := exec.Command(vllm, "serve", model, "--served-model-name", "m", "--dtype", "float32", "--enforce-eager", "--uds", socket)
			sidecar.Env = append(os.Environ(), vllmEnv...)
			sidecar.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if err := sidecar.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = syscall.Kill(-sidecar.Process.Pid, syscall.SIGKILL); _ = sidecar.Wait() })
			s := serve(t, "--vllm-url=unix://"+socket)
			s.until("ready", startTimeout, ready)
			for path, body := range tt.requests {
				status, got := s.post(t.Context(), path, body)
				if want := asked(t, socket, path, body); status != 200 || steadily(got) != steadily(want) {
					t.Errorf("%s: HTTP %d\n%s\nwant\n%s", path, status, got, want)
				}
			}
			if status, text := s.post(t.Context(), tt.lacks, `{"prompt":"x","messages":[{"role":"user","content":"x"}]}`); status != 404 || !strings.Contains(text, "route_not_found") {
				t.Errorf("%s: HTTP %d %s", tt.lacks, status, text)
			}
		})
	}
}

// steadily leaves out what differs between any two answers.
func steadily(answer string) string {
	for _, v := range varying {
		answer = v.what.ReplaceAllString(answer, v.to)
	}
	return answer
}

// asked is the answer of the vLLM on socket itself.
func asked(t *testing.T, socket, path, body string) string {
	t.Helper()
	dialer := &net.Dialer{}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", socket)
		}}}
	resp, err := client.Post("http://vllm"+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
