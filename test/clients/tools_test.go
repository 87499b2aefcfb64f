package clients

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// TestPython runs the official Python client, whose checks are in client.py.
func TestPython(t *testing.T) {
	s := ready(t, "--context=256")
	cmd := exec.CommandContext(timeout(t), fromMake(t, "INFER_TEST_PYTHON"), "client.py", s.url+"/v1", model)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("client.py: %v\n%s", err, out)
	}
	s.until("all slots to be free", func() bool { return s.metric("infer_requests_running") == 0 })
}

// chat runs infer chat.
func (s *server) chat(stdin string, args ...string) (cmd *exec.Cmd, stdout, stderr *bytes.Buffer) {
	s.t.Helper()
	cmd = exec.CommandContext(timeout(s.t), binary, append([]string{"chat", "--temperature=0"}, args...)...)
	cmd.Env = []string{"INFER_URL=" + s.url}
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), stdout, stderr
	return cmd, stdout, stderr
}

func TestChatCommand(t *testing.T) {
	s := ready(t, "--context=256")
	s.warm(ask("Name three fruits.", 1))
	cmd, stdout, stderr := s.chat("", "--max-tokens=8", "Name three fruits.")
	if err := cmd.Run(); err != nil || strings.TrimSpace(stdout.String()) == "" {
		t.Errorf("%v, stdout %q, stderr %q", err, stdout, stderr)
	}
	if !regexp.MustCompile(`^\[8 tokens, TTFT \d+ ms, [\d.]+ tokens/s\]\n$`).MatchString(stderr.String()) {
		t.Errorf("stderr %q", stderr)
	}
	piped, again, _ := s.chat("Name three fruits.", "--max-tokens=8")
	if err := piped.Run(); err != nil || again.String() != stdout.String() {
		t.Errorf("piped: %v, %q; as an argument: %q", err, again, stdout)
	}
	refused, _, stderr := s.chat("", "--model=gpt-4o", "hi")
	if err := refused.Run(); err == nil || refused.ProcessState.ExitCode() != 64 || !strings.Contains(stderr.String(), "server: ") {
		t.Errorf("%v, stderr %q", err, stderr)
	}
}

// Ctrl-C ends a long answer and frees its slot.
func TestChatCommandInterrupted(t *testing.T) {
	s := ready(t)
	cmd, _, stderr := s.chat("", "Tell me a very long story, with many chapters.")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.until("the answer to begin", func() bool { return s.metric("infer_requests_running") == 1 })
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the exit code says it
	if status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus); status.ExitStatus() != 130 {
		t.Errorf("exit code %d, want 130; stderr %q", status.ExitStatus(), stderr)
	}
	s.until("the slot to be free", func() bool { return s.metric("infer_requests_running") == 0 })
}
