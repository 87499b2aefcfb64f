package vllm

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// proc is one process as /proc/PID/stat shows it (proc_pid_stat(5)).
type proc struct {
	pid, parent, group, session int
	state                       byte // Z is a zombie, T is stopped
	name                        string
}

// readProc parses one stat file. The name is in parentheses and may itself
// hold anything, so the fields are counted from the last one.
func readProc(text []byte) (proc, bool) {
	open, shut := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	if open < 0 || shut < open {
		return proc{}, false
	}
	fields := strings.Fields(string(text[shut+1:]))
	pid, err := strconv.Atoi(strings.TrimSpace(string(text[:open])))
	if err != nil || len(fields) < 4 || len(fields[0]) != 1 {
		return proc{}, false
	}
	p := proc{pid: pid, name: string(text[open+1 : shut]), state: fields[0][0]}
	for i, to := range []*int{&p.parent, &p.group, &p.session} {
		if *to, err = strconv.Atoi(fields[i+1]); err != nil {
			return proc{}, false
		}
	}
	return p, true
}

// procs lists the processes that are there now. One that ends meanwhile is
// left out.
func procs() ([]proc, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	names, err := dir.Readdirnames(-1)
	_ = dir.Close() // it was only read
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var all []proc
	for _, name := range names {
		if name[0] < '0' || name[0] > '9' {
			continue
		}
		text, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue
		}
		if p, ok := readProc(text); ok {
			all = append(all, p)
		}
	}
	return all, nil
}

// family is everything that descends from one child: its session, whatever
// process groups that has, and those who carry its mark in their environment,
// which they keep also when they make a session of their own.
type family struct {
	leader int
	mark   string // NAME=VALUE
}

// members lists who of the family is there, zombies included.
func (f family) members() ([]proc, error) {
	all, err := procs()
	if err != nil {
		return nil, err
	}
	var members []proc
	for _, p := range all {
		if p.pid == f.leader || p.group == f.leader || p.session == f.leader || f.marked(p) {
			members = append(members, p)
		}
	}
	return members, nil
}

func (f family) marked(p proc) bool {
	if p.pid == os.Getpid() || p.state == 'Z' {
		return false
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
	if err != nil {
		return false // another user's, or gone
	}
	for v := range bytes.SplitSeq(env, []byte{0}) {
		if string(v) == f.mark {
			return true
		}
	}
	return false
}

// reap collects those members that are our own zombies: orphans come to the
// nearest sub-reaper, which is this process. The leader is left to whoever
// waits for it.
func (f family) reap(members []proc) (left []proc) {
	self := os.Getpid()
	for _, p := range members {
		if p.state == 'Z' && p.parent == self && p.pid != f.leader {
			if pid, err := syscall.Wait4(p.pid, nil, syscall.WNOHANG, nil); err == nil && pid == p.pid {
				continue
			}
		}
		left = append(left, p)
	}
	return left
}

// kill ends every member at once.
func (f family) kill(members []proc) {
	if len(members) > 0 && f.leader > 1 {
		_ = syscall.Kill(-f.leader, syscall.SIGKILL) // the group may be gone already
	}
	for _, p := range members {
		if p.state != 'Z' {
			_ = syscall.Kill(p.pid, syscall.SIGKILL) // it may have gone meanwhile
		}
	}
}

// oomKills is how often the kernel has killed something of this container for
// memory, from its cgroup (cgroup v2, memory.events); -1 when unknown.
func oomKills() int {
	text, err := os.ReadFile("/sys/fs/cgroup/memory.events")
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "oom_kill "); ok {
			return number([]byte(strings.TrimSpace(value)))
		}
	}
	return -1
}
