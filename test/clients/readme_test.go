package clients

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// readme returns the text of README.md and the pages that it names, and their
// blocks of shell commands.
func readme(t *testing.T) (text string, blocks []string) {
	t.Helper()
	var b []byte
	for _, page := range []string{"README.md", "docs/configuration.md", "docs/api.md", "docs/durable-work.md", "docs/operations.md"} {
		text, err := os.ReadFile("../../" + page)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, text...)
	}
	for _, m := range regexp.MustCompile("(?ms)^```sh\n(.*?)^```$").FindAllStringSubmatch(string(b), -1) {
		blocks = append(blocks, m[1])
	}
	if len(blocks) < 4 {
		t.Fatalf("README.md has %d blocks of commands", len(blocks))
	}
	return string(b), blocks
}

// Whoever types what README.md says gets what it says, from make run on. The
// commands run as written but for the port.
func TestReadme(t *testing.T) {
	text, blocks := readme(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	if strings.TrimSpace(blocks[0]) != "make run" {
		t.Fatalf("the first command is %q, want make run", blocks[0])
	}
	s := makeRun(t, addr)
	for _, block := range blocks[1:] {
		s.shell(block)
	}
	s.checkMetrics(text)
	s.checkPaths(text)
	if err := syscall.Kill(-s.cmd.Process.Pid, syscall.SIGINT); err != nil { // as a terminal does on Ctrl-C
		t.Fatal(err)
	}
	s.exitCode() // make's own
	if log := s.log.String(); !strings.Contains(log, `msg="drain ended"`) || !strings.Contains(log, "bin/infer chat") {
		t.Errorf("make run did not say what to try, or did not stop well:\n%s", log)
	}
}

// makeRun runs make run on addr in a process group of its own, and waits for
// the model.
func makeRun(t *testing.T, addr string) *server {
	t.Helper()
	// What takes minutes on a busy machine is done before anything waits for it.
	if out, err := exec.CommandContext(timeout(t), "make", "-C", "../..", "build").CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	cmd := exec.Command("make", "-C", "../..", "run", "INFER_LISTEN="+addr)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	in.Close()
	s := &server{t: t, url: "http://" + addr, cmd: cmd, log: &logs{address: make(chan string, 1)}, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.log.read(out)
		s.err = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have ended
		s.stop()
	})
	s.until("make run to serve", func() bool { status, _ := s.get("/readyz"); return status == http.StatusOK })
	return s
}

// shell runs a block of commands. Those of make are only looked up: they run
// this test.
func (s *server) shell(block string) {
	s.t.Helper()
	script := strings.ReplaceAll(block, "http://127.0.0.1:8080", s.url)
	script = regexp.MustCompile(`(?m)^make `).ReplaceAllString(script, "make -n ")
	script = regexp.MustCompile(`(?m)^curl `).ReplaceAllString(script, "curl -fsS ")
	cmd := exec.CommandContext(timeout(s.t), "bash", "-euxo", "pipefail", "-c", script)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "INFER_URL="+s.url)
	cmd.WaitDelay = time.Second // what bash started may outlive it
	out, err := cmd.CombinedOutput()
	if err != nil || len(out) == 0 {
		s.t.Errorf("%v\n%s", err, out)
	}
}

// checkPaths looks in text for every path that GET / lists.
func (s *server) checkPaths(text string) {
	s.t.Helper()
	_, index := s.get("/")
	paths := regexp.MustCompile(`(?m)^(?:GET|POST) +(/[a-z0-9/_]*)`).FindAllStringSubmatch(index, -1)
	if len(paths) < 5 {
		s.t.Errorf("GET / lists %d paths:\n%s", len(paths), index)
	}
	for _, m := range paths {
		if !strings.Contains(text, m[1]) {
			s.t.Errorf("README.md does not name the path %s", m[1])
		}
	}
}

// checkMetrics compares the names in text with those of /metrics. Those of a
// GPU are there where one is.
func (s *server) checkMetrics(text string) {
	s.t.Helper()
	_, metrics := s.get("/metrics")
	names := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (infer_\w+) `).FindAllStringSubmatch(metrics, -1) {
		names[m[1]] = true
		if !strings.Contains(text, "`"+m[1]+"`") && !strings.Contains(text, "`"+m[1]+"{") {
			s.t.Errorf("README.md does not name the metric %s", m[1])
		}
	}
	for _, m := range regexp.MustCompile("`(infer_[a-z_]+)`").FindAllStringSubmatch(text, -1) {
		if !names[m[1]] && !strings.HasPrefix(m[1], "infer_gpu_") {
			s.t.Errorf("README.md names %s, which /metrics does not have after a few requests", m[1])
		}
	}
}
