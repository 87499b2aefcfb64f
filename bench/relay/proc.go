package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is one arm, or the upstream, with its children.
type process struct {
	cmd   *exec.Cmd
	log   *os.File
	alone bool // its children are not part of the arm
}

// start runs a program in a group of its own.
func start(folder, name string, args ...string) (*process, error) {
	log, err := os.Create(filepath.Join(folder, fmt.Sprintf("%s-%d.log", filepath.Base(name), time.Now().UnixNano())))
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "PATH="+folder+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return &process{cmd: cmd, log: log}, nil
}

// stop ends the whole group and waits for its leader.
func (p *process) stop() {
	if p.alone { // it has groups of its own to end
		_ = p.cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = p.cmd.Process.Kill() })
		defer kill.Stop()
	} else {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
	_ = p.cmd.Wait() // it was told to end
	_ = p.log.Close()
}

// group lists the processes of the arm.
func (p *process) group() []string {
	pids := []string{strconv.Itoa(p.cmd.Process.Pid)}
	for i := 0; i < len(pids) && !p.alone; i++ {
		b, err := os.ReadFile("/proc/" + pids[i] + "/task/" + pids[i] + "/children")
		if err == nil {
			pids = append(pids, strings.Fields(string(b))...)
		}
	}
	return pids
}

// cpu is the time on a processor so far, of every thread to the nanosecond:
// the ticks of /proc/PID/stat miss what works for microseconds at a time.
func (p *process) cpu() (time.Duration, error) {
	var sum time.Duration
	for _, pid := range p.group() {
		threads, err := filepath.Glob("/proc/" + pid + "/task/*/schedstat")
		if err != nil || len(threads) == 0 {
			return 0, fmt.Errorf("no schedstat of %s: %w", pid, err)
		}
		for _, name := range threads {
			b, err := os.ReadFile(name)
			if err != nil {
				return 0, err
			}
			ran, _, _ := strings.Cut(string(b), " ")
			n, err := strconv.ParseInt(ran, 10, 64)
			if err != nil {
				return 0, err
			}
			sum += time.Duration(n)
		}
	}
	return sum, nil
}

// anonymous is RssAnon in bytes.
func (p *process) anonymous() (int, error) {
	sum := 0
	for _, pid := range p.group() {
		b, err := os.ReadFile("/proc/" + pid + "/status")
		if err != nil {
			return 0, err
		}
		_, rest, ok := strings.Cut(string(b), "RssAnon:")
		if !ok {
			return 0, fmt.Errorf("no RssAnon of %s", pid)
		}
		kb, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			return 0, err
		}
		sum += kb << 10
	}
	return sum, nil
}

// until waits for an arm to answer.
func until(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		c, err := connect(ctx, address)
		if err == nil {
			err = c.whole(request(""))
			c.close()
			if err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", address, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}
