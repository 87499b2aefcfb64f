package main

import "testing"

func TestSummarize(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []float64
		want summary
	}{
		{"none", nil, summary{}},
		{"one", []float64{3}, summary{3, 3, 3, 1}},
		{"odd, unsorted", []float64{5, 1, 9, 2, 3}, summary{3, 1, 9, 5}},
		{"even", []float64{4, 1, 2, 10}, summary{3, 1, 10, 4}},
	} {
		if got := summarize(c.in); got != c.want {
			t.Errorf("%s: summarize(%v) = %v, want %v", c.name, c.in, got, c.want)
		}
	}
}

func TestSummarizeLeavesItsInput(t *testing.T) {
	in := []float64{3, 1, 2}
	summarize(in)
	if in[0] != 3 || in[1] != 1 || in[2] != 2 {
		t.Errorf("summarize reordered its input to %v; pairs would no longer match", in)
	}
}

// TestPairedDividesDriftOut has a machine that gets twice as slow each time: the
// ratio stays what it is, where the ratio of the medians' ranges would not.
func TestPairedDividesDriftOut(t *testing.T) {
	a, b := []float64{400, 200, 100}, []float64{200, 100, 50}
	if got, want := paired(a, b), (summary{2, 2, 2, 3}); got != want {
		t.Errorf("paired = %v, want %v", got, want)
	}
}

func TestQuantile(t *testing.T) {
	ten := []float64{10, 1, 9, 2, 8, 3, 7, 4, 6, 5}
	for _, c := range []struct {
		in      []float64
		q, want float64
	}{
		{nil, 0.5, 0}, {[]float64{7}, 0.99, 7}, {ten, 0, 1}, {ten, 0.5, 5}, {ten, 0.9, 9}, {ten, 0.91, 10}, {ten, 0.99, 10}, {ten, 1, 10},
	} {
		if got := quantile(c.in, c.q); got != c.want {
			t.Errorf("quantile(%v, %v) = %v, want %v", c.in, c.q, got, c.want)
		}
	}
	if ten[0] != 10 {
		t.Error("quantile reordered its input")
	}
}

func TestScaleAndFormat(t *testing.T) {
	overhead := summary{1.02, 1.01, 1.05, 5}.scale(100, -100)
	if got, want := overhead.format("%.1f"), "2.0 (1.0–5.0)"; got != want {
		t.Errorf("format = %q, want %q", got, want)
	}
}
