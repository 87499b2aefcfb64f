package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is the unit of the times in /proc/PID/stat: USER_HZ, which
// every Linux of today fixes at 100.
const ticksPerSecond = 100

// cpuTime is what all threads of a process have used so far, user and system.
func cpuTime(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read cpu time: %w; the process has ended, see its output above", err)
	}
	return parseStat(string(text))
}

// parseStat reads utime and stime. The second field is the name of the program
// in parentheses and may itself hold both blanks and parentheses.
func parseStat(text string) (time.Duration, error) {
	end := strings.LastIndexByte(text, ')')
	fields := strings.Fields(text[end+1:])
	const utime, stime = 14 - 3, 15 - 3 // the third field of the file is fields[0]
	if end < 0 || len(fields) <= stime {
		return 0, fmt.Errorf("stat of a process has %d fields after its name, want more than %d", len(fields), stime)
	}
	var ticks uint64
	for _, f := range []string{fields[utime], fields[stime]} {
		n, err := strconv.ParseUint(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("stat of a process: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / ticksPerSecond, nil
}

// loadAverage is the machine's over the last minute. More than the number of
// cores means that the wall clock measures somebody else's work too.
func loadAverage() float64 {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return -1
	}
	first, _, _ := strings.Cut(string(text), " ")
	load, err := strconv.ParseFloat(first, 64)
	if err != nil {
		return -1
	}
	return load
}

// processor is the name of the first core.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(name, " \t\n:")
		}
	}
	return "unknown"
}

// sample is one measurement of one engine.
type sample struct {
	Tokens int
	Wall   time.Duration
	CPU    time.Duration
}

func (s sample) perSecond() float64    { return float64(s.Tokens) / s.Wall.Seconds() }
func (s sample) perCPUSecond() float64 { return float64(s.Tokens) / s.CPU.Seconds() }

// meter is the begin of a sample of process pid.
type meter struct {
	pid  int
	wall time.Time
	cpu  time.Duration
}

func startMeter(pid int) (meter, error) {
	cpu, err := cpuTime(pid)
	return meter{pid: pid, wall: time.Now(), cpu: cpu}, err
}

func (m meter) stop(tokens int) (sample, error) {
	s := sample{Tokens: tokens, Wall: time.Since(m.wall)}
	cpu, err := cpuTime(m.pid)
	if err != nil {
		return s, err
	}
	if s.CPU = cpu - m.cpu; s.CPU <= 0 {
		return s, fmt.Errorf("%d tokens took no measurable cpu time; raise --prompt and --steps", tokens)
	}
	return s, nil
}
