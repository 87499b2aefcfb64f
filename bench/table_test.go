package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// fakeTable has two rounds, of which the second is half as fast.
func fakeTable() *table {
	t := &table{Suite: "streams", setting: setting{Threads: 2}, Task: "of all streams", LoadBefore: 0.5, LoadAfter: 1.5,
		Columns: []column{{"rate", "%.0f"}, {"TTFT, s", "%.2f"}}}
	var r rounds
	for _, k := range []float64{1, 2} {
		r.add("infer", 300/k, 0.1*k)
		r.add("other", 200/k, 0.5*k)
	}
	t.fill(&r, []comparedRows{
		{Name: "faster", A: "infer", B: "other", Goal: goal{AtLeast: 2}},
		{Name: "sooner", A: "infer", B: "other", Goal: goal{AtMost: 0.25}},
		{Name: "as it is", A: "other", B: "infer"},
	})
	return t
}

func TestTablePrints(t *testing.T) {
	var out strings.Builder
	if err := fakeTable().print(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"== streams, 2 threads (load average 0.5 before, 1.5 after) of all streams what rate TTFT, s",
		"infer 225 (150–300) 0.15 (0.10–0.20)",
		"faster ≥ 2.00 1.50 (1.50–1.50) missed 0.20 (0.20–0.20) missed",
		"sooner ≤ 0.25 1.50 (1.50–1.50) missed 0.20 (0.20–0.20) met",
		"as it is none 0.67 (0.67–0.67) 5.00 (5.00–5.00)",
	} {
		if !strings.Contains(strings.Join(strings.Fields(out.String()), " "), want) {
			t.Errorf("the table lacks %q:\n%s", want, out.String())
		}
	}
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "as it is") && (strings.Contains(line, " met") || strings.Contains(line, " missed")) {
			t.Errorf("a ratio without a goal was judged: %s", line)
		}
	}
}

func TestTableInJSON(t *testing.T) {
	text, err := json.Marshal(fakeTable())
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"suite":"streams","threads":2,"spin":false`, `"columns":[{"name":"rate"}`, `"load_average_after":1.5`,
		`{"name":"infer","values":[{"median":225,"min":150,"max":300,"n":2}`,
		`{"name":"faster","row":"infer","by_row":"other","goal":{"at_least":2},"values":[{"median":1.5,"min":1.5,"max":1.5,"n":2}`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("the JSON lacks %s:\n%s", want, text)
		}
	}
}
