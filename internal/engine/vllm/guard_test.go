package vllm

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"infer/internal/engine"
)

// When the process that runs vLLM is gone, so is soon all that it has started:
// the guard's input ends with it. Here only the guard's input does.
func TestGuardEndsTheFamily(t *testing.T) {
	cfg := fakeConfig(t, "ignoreterm")
	r := run(t, cfg, nil)
	r.until(phase(engine.Ready))
	api := r.part("api")
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", api))
	if err != nil {
		t.Fatal(err)
	}
	_, mark, _ := strings.Cut(string(env), markName)
	mark, _, _ = strings.Cut(markName+mark, "\x00")
	in, killed := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- Guard(in) }()
	if _, err := fmt.Fprintf(killed, "%d %s\n", api, mark); err != nil {
		t.Fatal(err)
	}
	if syscall.Kill(api, 0) != nil {
		t.Error("the guard does not wait for the end of its input")
	}
	_ = killed.Close()
	if err := <-ended; err != nil {
		t.Errorf("Guard() = %v", err)
	}
	st := r.until(func(st engine.Status) bool { return st.Failure != nil })
	if st.Failure.Cause != engine.CauseKilled {
		t.Errorf("ended by %s, want %s", st.Failure.Cause, engine.CauseKilled)
	}
}

// A guard that is told nothing, or nonsense, ends nobody.
func TestGuardNeedsInstructions(t *testing.T) {
	victim := exec.Command("sleep", "1000")
	victim.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(victim) })
	pid := victim.Process.Pid
	for in, fails := range map[string]bool{
		"": false, fmt.Sprint(pid): false,
		fmt.Sprintf("%d\n", pid): true, fmt.Sprintf("%d PATH=/\n", pid): true, "1 " + markName + "=x\n": true, "-1 " + markName + "=x\n": true, "\n": true,
	} {
		if err := Guard(strings.NewReader(in)); (err != nil) != fails {
			t.Errorf("Guard(%q) = %v", in, err)
		}
	}
	if err := syscall.Kill(pid, 0); err != nil {
		t.Errorf("the process was ended: %v", err)
	}
}

// Without a guard vLLM runs all the same, and the log says what is missing.
func TestNoGuard(t *testing.T) {
	for _, command := range []string{"/no/such/guard", "true"} {
		cfg := fakeConfig(t, "")
		cfg.Guard = []string{command}
		r := run(t, cfg, nil)
		r.until(phase(engine.Ready))
		if command != "true" && !strings.Contains(r.logs.String(), "nothing will end vllm's processes") {
			t.Errorf("%s: the log does not say that there is no guard", command)
		}
		r.stop()
		if err := r.result(); err != nil {
			t.Errorf("%s: Run() = %v", command, err)
		}
	}
}
