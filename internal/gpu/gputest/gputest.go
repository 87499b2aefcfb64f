// Package gputest makes GPUs without hardware, for tests: a libnvidia-ml.so.1
// that answers from a file, which a test rewrites while it is watched.
package gputest

import (
	"context"
	_ "embed" // the library's source
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

//go:embed testdata/fakenvml.c
var source string

// Library is a fake libnvidia-ml.so.1.
type Library struct {
	Path string // of the library
}

// A100 are the lines of a busy GPU with everything that NVML may tell of it.
// The file of the C source says what lines there are.
func A100(gpu int) []string {
	lines := []string{
		"uuid GPU-%d", "name NVIDIA A100 80GB PCIe", "util 97", "total 85899345920", "reserved 536870912", "used 42949672960",
		"power 300000", "energy 5000000", "temperature 61", "sm_mhz 1410", "memory_mhz 1512", "reasons 4",
		"ecc_corrected 2", "ecc_uncorrected 0", "field230 0",
	}
	for i, line := range lines {
		lines[i] = fmt.Sprintf("gpu%d.", gpu) + strings.ReplaceAll(line, "%d", fmt.Sprint(gpu))
	}
	return append(lines, "driver 580.95.05", "cuda 13000")
}

// Build compiles the library into dir, without the functions that are named.
func Build(ctx context.Context, dir string, without ...string) (Library, error) {
	l := Library{filepath.Join(dir, "libnvidia-ml.so.1")}
	args := []string{"-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unused", "-x", "c", "-o", l.Path, "-"}
	for _, name := range without {
		args = append(args, "-DNO_"+name)
	}
	cmd := exec.CommandContext(ctx, "cc", args...)
	cmd.Stdin = strings.NewReader(source)
	if out, err := cmd.CombinedOutput(); err != nil {
		return l, fmt.Errorf("build the fake NVML: %w\n%s", err, out)
	}
	return l, nil
}

// Set replaces what the GPUs say. It is seen by the next call as a whole.
func (l Library) Set(lines ...string) error {
	next := l.Path + ".next"
	if err := os.WriteFile(next, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	return os.Rename(next, l.Path+".txt")
}

// With returns lines with some of them changed: a line takes the place of
// those with its key, and is added where there is none.
func With(lines []string, changes ...string) []string {
	key := func(line string) string { k, _, _ := strings.Cut(line, " "); return k }
	changed := map[string]bool{}
	for _, c := range changes {
		changed[key(c)] = true
	}
	var with []string
	for _, line := range lines {
		if !changed[key(line)] {
			with = append(with, line)
		}
	}
	return append(with, changes...)
}
