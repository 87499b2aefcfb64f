//go:build real

package vllm

import (
	"bytes"
	"context"
	"encoding/json/v2"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// vllmFlags are for a small machine: float32 is exact on every CPU, and no
// compiler is needed. The KV cache holds 22 sequences of this length.
var vllmFlags = []string{"--dtype", "float32", "--max-model-len", "1024", "--max-num-seqs", "20", "--enforce-eager"}

// vllmEnv keeps OpenMP's threads from spinning against each other.
var vllmEnv = []string{"HF_HUB_OFFLINE=1", "TRANSFORMERS_OFFLINE=1", "VLLM_CPU_KVCACHE_SPACE=1",
	"VLLM_CPU_OMP_THREADS_BIND=nobind", "OMP_NUM_THREADS=1", "OMP_WAIT_POLICY=PASSIVE", "VLLM_NO_USAGE_STATS=1"}

// startTimeout is generous: a start takes 35 s on two idle cores, and minutes
// on busy ones or when Python compiles everything for the first time.
const startTimeout = 6 * time.Minute

// fromMake returns a variable that names a real part.
func fromMake(t *testing.T, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Fatalf("%s is empty; run make test-real, which fetches the real parts", name)
	}
	return v
}

// binary is infer, built once for all tests.
var binary string

func TestMain(m *testing.M) { os.Exit(build(m)) }

func build(m *testing.M) int {
	folder, err := os.MkdirTemp("", "infer-test-vllm")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(folder) }()
	binary = filepath.Join(folder, "infer")
	if out, err := exec.Command("go", "build", "-o", binary, "infer/cmd/infer").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// server is a running infer.
type server struct {
	t     *testing.T
	url   string
	cmd   *exec.Cmd
	began time.Time
	log   *output
	ended chan error
	key   string // of /metrics; empty without keys
}

// output collects what a program prints.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// listening is what infer logs as soon as it can be asked.
var listening = regexp.MustCompile(`msg=listening .*\baddr=(\S+)`)

// serve starts infer and returns once it listens.
func serve(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{t: t, log: &output{}, ended: make(chan error, 1)}
	s.cmd = exec.Command(binary, append([]string{"serve", "--listen=127.0.0.1:0", "--cache", t.TempDir(), "--log-format=text", "--device=cpu"}, args...)...)
	s.cmd.Env = append(os.Environ(), vllmEnv...)
	s.cmd.Stderr = s.log
	s.began = time.Now()
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- s.cmd.Wait() }()
	t.Cleanup(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case err := <-s.ended:
			s.ended <- err
		case <-time.After(time.Minute):
			_ = s.cmd.Process.Kill()
		}
		if t.Failed() {
			text := s.log.String()
			t.Logf("the end of infer's log:\n%s", text[max(0, len(text)-12000):])
		}
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for s.url == "" {
		if m := listening.FindStringSubmatch(s.log.String()); m != nil {
			s.url = "http://" + m[1]
		} else if time.Since(s.began) > time.Minute {
			t.Fatal("infer does not listen")
		}
		select {
		case err := <-s.ended:
			s.ended <- err
			if !listening.MatchString(s.log.String()) {
				t.Fatalf("infer ended: %v", err)
			}
		case <-tick.C:
		}
	}
	return s
}

// state is what a probe says.
type state struct {
	Status    string  `json:"status"`
	Phase     string  `json:"phase"`
	Cause     string  `json:"cause"`
	Detail    string  `json:"detail"`
	Message   string  `json:"message"`
	Remaining float64 `json:"remaining_seconds"`
}

func (s *server) probe() (code int, st state) {
	resp, err := http.Get(s.url + "/readyz")
	if err != nil {
		return 0, st
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.UnmarshalRead(resp.Body, &st); err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, st
}

// until asks until want is true and returns every phase that was seen.
func (s *server) until(what string, within time.Duration, want func(int, state) bool) (phases []string, took time.Duration) {
	s.t.Helper()
	began := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		code, st := s.probe()
		if st.Phase != "" && (len(phases) == 0 || phases[len(phases)-1] != st.Phase) {
			phases = append(phases, st.Phase)
		}
		if want(code, st) {
			return phases, time.Since(began)
		}
		if time.Since(began) > within {
			s.t.Fatalf("%s did not come within %v; %d %+v", what, within, code, st)
		}
		select {
		case err := <-s.ended:
			s.ended <- err
			s.t.Fatalf("infer ended: %v", err)
		case <-tick.C:
		}
	}
}

func ready(code int, _ state) bool { return code == 200 }

// post returns status and body.
func (s *server) post(ctx context.Context, path, body string) (int, string) {
	s.t.Helper()
	return s.postAs(ctx, "", path, body)
}

// postAs posts with an API key.
func (s *server) postAs(ctx context.Context, key, path, body string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, string(text) + err.Error()
	}
	return resp.StatusCode, string(text)
}

// metric reads one series of /metrics; -1 when it is not there.
func (s *server) metric(series string) float64 {
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+"/metrics", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if s.key != "" {
		req.Header.Set("Authorization", "Bearer "+s.key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, series); ok {
			fields := strings.Fields(rest)
			v, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return v
		}
	}
	return -1
}

// untilMetric waits until a series has a value.
func (s *server) untilMetric(series string, want float64, within time.Duration) time.Duration {
	s.t.Helper()
	began := time.Now()
	for {
		got := s.metric(series)
		switch took := time.Since(began); {
		case got == want:
			return took
		case took > within:
			s.t.Fatalf("%s is %v after %v, want %v", series, got, took, want)
		}
	}
}

// apiServer stands for the process that infer itself has started, which is
// named after Python.
const apiServer = "API server"

// guard is infer's other child, as the kernel names /proc/self/exe.
const guard = "exe"

// descendants lists the processes below pid by name.
func descendants(t *testing.T, pid int) map[int]string {
	t.Helper()
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	parent, names := map[int]int{}, map[int]string{}
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", n))
		if err != nil {
			continue
		}
		name, rest, _ := strings.Cut(string(text), ") ")
		fields := strings.Fields(rest)
		parent[n], _ = strconv.Atoi(fields[1])
		_, names[n], _ = strings.Cut(name, "(")
	}
	below := map[int]string{}
	for n := range parent {
		for p := parent[n]; p > 1; p = parent[p] {
			if p == pid {
				below[n] = names[n]
			}
			if p == pid && parent[n] == pid && below[n] != guard {
				below[n] = apiServer
			}
		}
	}
	return below
}

// named finds the one process below pid whose name begins so.
func named(t *testing.T, pid int, name string) int {
	t.Helper()
	all := descendants(t, pid)
	for n, is := range all {
		if strings.HasPrefix(is, name) {
			return n
		}
	}
	t.Fatalf("no %s among %v", name, all)
	return 0
}

func alive(pids map[int]string) []string {
	var left []string
	for pid, name := range pids {
		if syscall.Kill(pid, 0) == nil {
			left = append(left, fmt.Sprintf("%s (%d)", name, pid))
		}
	}
	return left
}

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}
