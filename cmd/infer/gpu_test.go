package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json/v2"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"infer/internal/gpu/gputest"
)

// gpuServer is infer with an encoder on the CPU and a fake GPU beside it.
type gpuServer struct {
	url  string
	fake gputest.Library
	cmd  *exec.Cmd
	log  func() string
	wait func() error
}

func serveWithGPU(t *testing.T, lines []string, args ...string) gpuServer {
	t.Helper()
	fake, err := gputest.Build(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := fake.Set(lines...); err != nil {
		t.Fatal(err)
	}
	short := program(t, nil, append([]string{"--listen=127.0.0.1:0", "--model", fromMake(t, "INFER_TEST_EMBEDDING_MODEL"),
		"--onnx-library", fromMake(t, "INFER_TEST_ONNXRUNTIME"), "--nvml-library", fake.Path, "--cache", t.TempDir(), "--grace=5s"}, args...)...)
	cmd := exec.CommandContext(t.Context(), short.Path, short.Args[1:]...) // a GPU is looked at every two seconds
	cmd.Env = short.Env
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var log bytes.Buffer
	addr, read := make(chan string, 1), make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			var line struct{ Msg, Addr string }
			if json.Unmarshal(lines.Bytes(), &line, json.MatchCaseInsensitiveNames(true)) == nil && line.Msg == "listening" {
				addr <- line.Addr
			}
			mu.Lock()
			log.WriteString(lines.Text() + "\n")
			mu.Unlock()
		}
		close(addr)
	}()
	s := gpuServer{fake: fake, cmd: cmd}
	s.log = func() string { mu.Lock(); defer mu.Unlock(); return log.String() }
	s.wait = sync.OnceValue(func() error { <-read; return cmd.Wait() })
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = s.wait() })
	s.url = "http://" + <-addr
	return s
}

// get returns status and body of a path; the status is 0 when nobody answers.
func (s gpuServer) get(path string) (int, string) {
	resp, err := http.Get(s.url + path)
	if err != nil {
		return 0, ""
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(body)
}

func (s gpuServer) ready(t *testing.T) {
	t.Helper()
	wait(t, "readiness", func() bool { status, _ := s.get("/readyz"); return status == http.StatusOK })
}

func TestGPUOnMetricsAndItsLoss(t *testing.T) {
	lines := append(gputest.A100(0), "gpu0.live 80", "gpu0.watts 300")
	s := serveWithGPU(t, lines, "--model", fromMake(t, "INFER_TEST_MODEL_GGUF"), "--served-model-name=small", "--grace=60s")
	s.ready(t)
	wait(t, "the metrics", func() bool { _, got := s.get("/metrics"); return strings.Contains(got, "infer_gpu_up 1") })
	_, got := s.get("/metrics")
	contains(t, got, `gpu_utilization{gpu="0",uuid="GPU-0"} 80`, `nvidia_gpu_utilization{app="infer",gpu="0",uuid="GPU-0"} 80`,
		`infer_gpu_power_watts{gpu="0",uuid="GPU-0"} 300`)

	// An open stream holds the drain up.
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/v1/chat/completions",
		strings.NewReader(`{"stream":true,"max_tokens":1900,"ignore_eos":true,"messages":[{"role":"user","content":"Count."}]}`))
	if err != nil {
		t.Fatal(err)
	}
	stream, err := http.DefaultClient.Do(req)
	if err != nil || stream.StatusCode != http.StatusOK {
		t.Fatalf("the stream: %v, %v", stream, err)
	}
	defer func() { _ = stream.Body.Close() }()
	wait(t, "the bill", func() bool {
		_, got := s.get("/metrics")
		return strings.Contains(got, `infer_energy_joules_total{key="anonymous",model="small"}`)
	})
	if err := s.fake.Set(append(lines, "event 0 79")...); err != nil {
		t.Fatal(err)
	}
	wait(t, "the cause in /readyz", func() bool {
		status, got := s.get("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(got, `"cause":"gpu_lost"`) && strings.Contains(got, "XID 79 of GPU 0")
	})
	leave()
	_ = s.wait()
	if code := s.cmd.ProcessState.ExitCode(); code != exitGPULost {
		t.Errorf("exit code %d, want %d; log:\n%s", code, exitGPULost, s.log())
	}
	contains(t, s.log(), "infer: XID 79 of GPU 0; move this container to another node")
}

// --device cpu leaves the GPU alone, whatever becomes of it.
func TestGPUThatIsNotUsed(t *testing.T) {
	lines := gputest.With(gputest.A100(0), "gpu0.used 0")
	s := serveWithGPU(t, append(lines, "event 0 79"), "--device=cpu")
	s.ready(t)
	wait(t, "the event", func() bool {
		_, got := s.get("/metrics")
		return strings.Contains(got, `infer_gpu_xid_errors_total{gpu="0",uuid="GPU-0",xid="79"} 1`)
	})
	if status, got := s.get("/readyz"); status != http.StatusOK {
		t.Errorf("/readyz is %d: %s", status, got)
	}
}

func TestSilentFallbackEndsTheProgram(t *testing.T) {
	s := serveWithGPU(t, gputest.With(gputest.A100(0), "gpu0.used 0"))
	_ = s.wait()
	if code := s.cmd.ProcessState.ExitCode(); code != exitUnavailable {
		t.Errorf("exit code %d, want %d", code, exitUnavailable)
	}
	contains(t, s.log(), "a GPU is present and the engine runs on the CPU", "or run with --device cpu")
}

// An engine that dies of the loss before it was sampled does not decide the
// exit code; one that dies for a reason of its own does, whatever the driver
// takes to answer.
func TestEngineThatDiesOfItsGPU(t *testing.T) {
	for _, tt := range []struct {
		name, change string
		code         int
		want         string
	}{
		{"lost", "gpu0.lost 1", exitGPULost, "infer: a GPU does not answer: GPU 0: "},
		{"sound", "gpu0.util 5", exitUnavailable, "infer: vllm: OSError: org/m "},
		{"the driver hangs", "delay.nvmlDeviceGetMemoryInfo_v2 100000", exitUnavailable, "infer: vllm: OSError: org/m "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			next := writeFile(t, "next", strings.Join(gputest.With(gputest.A100(0), tt.change), "\n")+"\n")
			vllm := script(t, `while ! [ -e "$0.go" ]; do sleep 0.05; done
mv '`+next+`' "$(cat "$0.go")"
echo 'OSError: org/m is not a local folder and is not a valid model identifier'
exit 1
`)
			s := serveWithGPU(t, gputest.A100(0), "--engine=vllm", "--model=org/m", "--vllm-program", vllm)
			wait(t, "the GPU", func() bool { _, got := s.get("/metrics"); return strings.Contains(got, "infer_gpu_up 1") })
			began := time.Now()
			if err := os.WriteFile(vllm+".new", []byte(s.fake.Path+".txt"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(vllm+".new", vllm+".go"); err != nil {
				t.Fatal(err)
			}
			_ = s.wait()
			if code := s.cmd.ProcessState.ExitCode(); code != tt.code {
				t.Errorf("exit code %d, want %d; log:\n%s", code, tt.code, s.log())
			}
			if took := time.Since(began); took > 90*time.Second {
				t.Errorf("the end took %v", took)
			}
			contains(t, s.log(), tt.want, "is not a valid model identifier")
		})
	}
}

// Without the driver's library the program lives, and says so once.
func TestNoGPULibrary(t *testing.T) {
	s := serveWithGPU(t, nil, "--nvml-library=/no/such/libnvidia-ml.so.1")
	s.ready(t)
	wait(t, "the line that tells of it", func() bool { return strings.Contains(s.log(), "no gpu is watched") })
	if _, got := s.get("/metrics"); !strings.Contains(got, "infer_gpu_up 0") || strings.Contains(got, "infer_gpu_power") {
		t.Errorf("metrics:\n%s", got)
	}
	if n := strings.Count(s.log(), "no gpu is watched"); n != 1 {
		t.Errorf("%d lines tell of it, want 1:\n%s", n, s.log())
	}
}

func TestVLLMOnCUDAWithoutAGPU(t *testing.T) {
	code, _, stderr := exits(t, nil, "--listen=127.0.0.1:0", "--model=org/m", "--engine=vllm", "--device=cuda", "--grace=2s",
		"--nvml-library=/no/such/libnvidia-ml.so.1", "--vllm-program", script(t, "sleep 60"))
	if code != exitUnavailable {
		t.Errorf("exit code %d, want %d", code, exitUnavailable)
	}
	contains(t, stderr, "--device cuda, and there is no GPU", "--device cpu")
}
