package main

import (
	"strings"
	"testing"
	"time"
)

// fakeOutcome gives every engine of every task the rates of its table: tokens
// per second, two rounds, the second at half the speed.
func fakeOutcome(table map[string][3]int) outcome {
	o := outcome{setting: setting{Threads: 1}, loadBefore: 0.5, loadAfter: 1.5, samples: map[string]map[string][]sample{}}
	for task, speeds := range table {
		o.samples[task] = map[string][]sample{}
		for i, engine := range engines {
			o.samples[task][engine] = []sample{
				{Tokens: speeds[i], Wall: time.Second, CPU: time.Second},
				{Tokens: speeds[i], Wall: 2 * time.Second, CPU: 2 * time.Second},
			}
		}
	}
	return o
}

func TestReportHoldsGoals(t *testing.T) {
	r := newReport(config{model: "m.gguf", prompt: 256, steps: 64, streams: 4, repeats: 2})
	r.add(fakeOutcome(map[string][3]int{ // infer, bare engine, llama.cpp
		prefill: {300, 303, 200},
		decode1: {90, 100, 100},
		decodeN: {198, 200, 100},
	}))
	r.Start = &startTimes{FirstAnswer: summary{0.02, 0.01, 0.03, 2}, FirstToken: summary{0.5, 0.4, 0.6, 2}}
	var out strings.Builder
	if err := r.print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"== base, 1 thread (load average 0.5 before, 1.5 after)",
		"prefill infer 225 (150–300) 225 (150–300)",
		"prefill, infer / llama.cpp ≥ 1.50 1.50 (1.50–1.50) met 1.50 (1.50–1.50) met",
		"decode 1 stream, infer / llama.cpp ≥ 1.00 0.90 (0.90–0.90) missed",
		"infer, many streams / 1 stream ≥ 2.20 2.20 (2.20–2.20) met",
		"prefill, infer / bare engine ≥ 0.97 0.99 (0.99–0.99) met",
		"decode 1 stream, infer / bare engine ≥ 0.97 0.90 (0.90–0.90) missed",
		"exec to first token: 0.500 (0.400–0.600) s",
	} {
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) {
			t.Errorf("the report lacks %q:\n%s", want, out.String())
		}
	}
}
