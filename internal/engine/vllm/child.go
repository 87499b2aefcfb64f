package vllm

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	markName = "INFER_ENGINE_FAMILY"
	// killPatience is how long the killed may take to be gone. A process that
	// is inside the GPU's driver dies only when it comes out.
	killPatience = 30 * time.Second
	goneInterval = 20 * time.Millisecond
	reapInterval = 2 * time.Second
)

// child is one run of vllm serve with all its descendants.
//
// vLLM's API server starts EngineCore, that starts workers, and none of them
// ends when the API server is killed (vllm-project/vllm issue 55510). So the
// child gets a session of its own, this process adopts what is orphaned in
// it, and its end is the end of the whole family.
type child struct {
	family family
	log    *slog.Logger
	oom    int // kills for memory before the start

	state  *os.ProcessState // of the leader; read after exited
	exited chan struct{}    // closed when the leader has ended
	closed chan struct{}    // closed when nobody holds the output any more
	output *os.File
	guard  *guard // nil when there is none
}

// command is what a child runs.
type command struct {
	program string
	args    []string
	env     []string // added to this process's own
	guard   []string // what calls Guard with its input; empty for none
}

// start runs c. line gets every line of its output. The child is killed when
// this process dies, and the rest of its family by the guard.
func start(c command, line func(string), log *slog.Logger) (*child, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("become sub-reaper: %w", err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make output pipe: %w", err)
	}
	cmd := exec.Command(c.program, c.args...)
	mark := markName + "=" + rand.Text()
	// The keys of this server's clients are none of vLLM's business.
	inherited := slices.DeleteFunc(slices.Clone(cmd.Environ()), func(v string) bool { return strings.HasPrefix(v, "INFER_API_KEYS=") })
	cmd.Env = append(append(inherited, c.env...), mark)
	cmd.Stdout, cmd.Stderr = write, write
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	ch := &child{log: log, output: read, oom: oomKills(), exited: make(chan struct{}), closed: make(chan struct{})}
	started := make(chan error, 1)
	go ch.run(cmd, started)
	err = <-started
	_ = write.Close() // the child has its own
	if err != nil {
		_ = read.Close()
		return nil, err
	}
	ch.family = family{leader: cmd.Process.Pid, mark: mark}
	if len(c.guard) > 0 && os.Getpid() != 1 {
		if ch.guard, err = startGuard(c.guard, ch.family); err != nil {
			log.Warn("nothing will end vllm's processes if this one is killed", "err", err)
		}
	}
	go func() {
		defer close(ch.closed)
		readLines(read, line)
	}()
	return ch, nil
}

// run holds one thread from fork to wait, because the parent whose death
// Pdeathsig reports is the thread (golang/go issue 27505).
func (ch *child) run(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := cmd.Start()
	started <- err
	if err != nil {
		return
	}
	_ = cmd.Wait() // its state says all
	ch.state = cmd.ProcessState
	close(ch.exited)
}

// reapOrphans collects what dies orphaned, until ctx ends.
func (ch *child) reapOrphans(ctx context.Context) {
	tick := time.NewTicker(reapInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			members, err := ch.family.members()
			if os.Getpid() == 1 { // then every orphan of the container is ours
				members, err = procs()
			}
			if err == nil {
				ch.family.reap(members)
			}
		case <-ctx.Done():
			return
		}
	}
}

// end stops the family: SIGTERM to the leader, who knows best how to stop its
// own; after patience, or when the leader is gone, SIGKILL to whoever is left.
// It returns when all were seen gone, or with an error that names who was not:
// the leader may be one of them, and then has no state yet.
func (ch *child) end(patience time.Duration) error {
	select {
	case <-ch.exited:
	default:
		_ = syscall.Kill(ch.family.leader, syscall.SIGTERM) // it may end at this moment
		timer := time.NewTimer(patience)
		select {
		case <-ch.exited:
		case <-timer.C:
			ch.log.Warn("vllm does not stop: killing its process group", "pid", ch.family.leader, "after_seconds", patience.Seconds())
		}
		timer.Stop()
	}
	err := ch.sweep()
	if err == nil {
		<-ch.exited // it was seen gone, which is after it was waited for
	}
	err = errors.Join(err, ch.closeOutput())
	if lost := ch.guard.dismiss(); lost != nil {
		ch.log.Warn("dismiss the guard of vllm", "err", lost)
	}
	return err
}

// sweep kills the family until nobody of it is seen.
func (ch *child) sweep() error {
	tick := time.NewTicker(goneInterval)
	defer tick.Stop()
	deadline := time.Now().Add(killPatience)
	told := false
	for {
		members, err := ch.family.members()
		if err != nil {
			return err
		}
		left := ch.family.reap(members)
		if len(left) == 0 {
			return nil
		}
		if !told && exited(ch) {
			told = true
			ch.log.Info("ending what vllm left behind", "processes", describe(left))
		}
		ch.family.kill(left)
		if time.Now().After(deadline) {
			return fmt.Errorf("%s cannot be ended; a process in the GPU's driver ends only with the node", describe(left))
		}
		<-tick.C
	}
}

func exited(ch *child) bool {
	select {
	case <-ch.exited:
		return true
	default:
		return false
	}
}

// closeOutput waits for the last line. Somebody outside the family may have
// been given the pipe, so it does not wait for long.
func (ch *child) closeOutput() error {
	timer := time.NewTimer(time.Second)
	defer timer.Stop()
	select {
	case <-ch.closed:
	case <-timer.C:
	}
	err := ch.output.Close()
	<-ch.closed
	if err != nil {
		return fmt.Errorf("close output of vllm: %w", err)
	}
	return nil
}

func describe(processes []proc) string {
	var all []string
	for _, p := range processes {
		all = append(all, fmt.Sprintf("%s (pid %d, state %c)", p.name, p.pid, p.state))
	}
	return strings.Join(all, ", ")
}
