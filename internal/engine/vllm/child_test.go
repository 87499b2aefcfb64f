package vllm

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A leader that is inside the GPU's driver does not end of SIGKILL; neither
// does one that is dead but never waited for.
func TestLeaderThatCannotBeEnded(t *testing.T) {
	leader, err := os.StartProcess("/bin/true", []string{"true"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = leader.Wait() }()
	synctest.Test(t, func(t *testing.T) {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		_ = write.Close()
		ch := &child{family: family{leader: leader.Pid, mark: markName + "=none"}, log: quiet, output: read,
			exited: make(chan struct{}), closed: make(chan struct{})}
		close(ch.closed)
		began := time.Now()
		err = ch.end(5 * time.Second)
		if err == nil || !strings.Contains(err.Error(), "cannot be ended") {
			t.Errorf("end() = %v, want who cannot be ended", err)
		}
		if took := time.Since(began); took > 5*time.Second+killPatience+time.Second {
			t.Errorf("given up after %v", took)
		}
	})
}
