package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSimulate(t *testing.T) {
	traffic := writeFile(t, "day.csv", "time,prompt_tokens,completion_tokens,rate\n0,800,300,20\n1800,800,300,1\n3600,0,0,0\n")
	rule := writeFile(t, "mine.yaml", "name: mine\nquery: sum(running) + sum(waiting)\ntarget: 20\n")
	world := writeFile(t, "world.yaml", "slots: 8\ncold_start: 60\n")
	chart := filepath.Join(t.TempDir(), "chart.svg")
	code, stdout, stderr := exits(t, nil, "simulate", "--trace", traffic, "--rule", rule, "--config", world, "--plot", chart)
	if code != 0 || stderr != "" {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	contains(t, stdout, "day.csv, 1.0 hours", "average of utilization", "queue depth", "saturation", "mine  AverageValue", "GPU-seconds")
	svg, err := os.ReadFile(chart)
	if err != nil || !strings.Contains(string(svg), "<svg") || strings.Count(string(svg), "<path") < 20 {
		t.Errorf("chart of %d bytes, %v", len(svg), err)
	}
}

func TestSimulateFaults(t *testing.T) {
	world := writeFile(t, "world.yaml", "slots: 0\ncold_start: 60\n")
	code, _, stderr := exits(t, nil, "simulate", "--trace", "weekly", "--rule", writeFile(t, "r.yaml", "query: sum(x)"), "--config", world, "--peak=-1")
	if code != exitUsage {
		t.Errorf("exit code %d, want %d", code, exitUsage)
	}
	contains(t, stderr, "weekly", "diurnal, burst and ramp", "slots: must be above 0", "r.yaml", "target: must be above 0", "unknown name x", "peak: -1")
}
