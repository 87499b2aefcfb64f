package vllm

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// guardInterval is between two looks of a guard that has somebody to end.
const guardInterval = 50 * time.Millisecond

// guard is a process that outlives this one for a moment, should this one be
// killed, to end the family: the kernel then kills only vLLM's API server,
// whose EngineCore goes on with the GPU's memory. It learns of our end because
// its input ends. In a container's PID 1 nothing is to guard: with it, the
// kernel ends all.
type guard struct {
	cmd   *exec.Cmd
	input io.Closer
}

// startGuard runs command, which must call Guard with its input. Its
// instruction waits in the pipe before it is started: were this process killed
// between the two, the guard would end nobody.
func startGuard(command []string, f family) (*guard, error) {
	read, input, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	defer func() { _ = read.Close() }() // the guard has its own
	cmd := exec.Command(command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // what ends our group must not end it
	cmd.Stdin = read
	if _, err := fmt.Fprintf(input, "%d %s\n", f.leader, f.mark); err != nil { // the pipe holds far more
		_ = input.Close()
		return nil, fmt.Errorf("instruct the guard: %w", err)
	}
	if err := cmd.Start(); err != nil {
		_ = input.Close()
		return nil, fmt.Errorf("start the guard: %w", err)
	}
	return &guard{cmd: cmd, input: input}, nil
}

// dismiss lets the guard go once the family is gone, which it sees for itself.
func (g *guard) dismiss() error {
	if g == nil {
		return nil
	}
	_ = g.input.Close() // its process has ended, if that fails
	if err := g.cmd.Wait(); err != nil {
		return fmt.Errorf("the guard of vllm: %w", err)
	}
	return nil
}

// Guard is the other side: it waits until in ends, which is when the process
// that runs vLLM does, and then ends what is left of the family that in has
// named. It returns when nobody is left, or with an error that names who.
func Guard(in io.Reader) error {
	r := bufio.NewReader(in)
	line, err := r.ReadString('\n')
	if err != nil { // not instructed: nothing was started
		return nil
	}
	leader, mark, _ := strings.Cut(strings.TrimSpace(line), " ")
	pid, err := strconv.Atoi(leader)
	if err != nil || pid <= 1 || !strings.HasPrefix(mark, markName+"=") {
		return fmt.Errorf("guard: %q is not PID %s=…; only infer serve runs this command", line, markName)
	}
	_, _ = io.Copy(io.Discard, r) // the end of input is all that matters
	f := family{leader: pid, mark: mark}
	deadline := time.Now().Add(killPatience)
	tick := time.NewTicker(guardInterval)
	defer tick.Stop()
	for {
		members, err := f.members()
		if err != nil {
			return err
		}
		members = slices.DeleteFunc(members, func(p proc) bool { return p.state == 'Z' }) // another's to reap
		if len(members) == 0 {
			return nil
		}
		f.kill(members)
		if time.Now().After(deadline) {
			return fmt.Errorf("guard: %s cannot be ended", describe(members))
		}
		<-tick.C
	}
}
