package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const rest = " S 1 2 3 0 -1 4194560 10 20 30 40 250 75 1 2 20 0 9 0 100"
	for name, text := range map[string]string{
		"plain":       "17 (infer)" + rest,
		"blank":       "17 (onnx test)" + rest,
		"parentheses": "17 (a) S 9 (b)" + rest,
	} {
		got, err := parseStat(text)
		if want := 3250 * time.Millisecond; err != nil || got != want {
			t.Errorf("%s: parseStat = %v, %v, want %v", name, got, err, want)
		}
	}
	for _, text := range []string{"", "17 (infer) S 1 2", "17 infer" + rest, "17 (infer)" + strings.Replace(rest, "250", "x", 1)} {
		if got, err := parseStat(text); err == nil {
			t.Errorf("parseStat(%q) = %v, want an error", text, got)
		}
	}
}

func TestCPUTimeGrowsWithWork(t *testing.T) {
	m, err := startMeter(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	x := 1.0
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		for range 1_000_000 {
			x = x*1.0000001 + 1
		}
		s, err := m.stop(100)
		if err != nil {
			continue // less than one tick so far
		}
		if s.perCPUSecond() <= 0 || s.perSecond() <= 0 {
			t.Errorf("rates %v and %v, want both over 0", s.perSecond(), s.perCPUSecond())
		}
		return
	}
	t.Errorf("ten seconds of work (%v) used no cpu time", x)
}
