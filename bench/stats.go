package main

import (
	"fmt"
	"math"
	"slices"
)

// summary is the median of repeated measurements with their range. A median is
// kept instead of a mean because whatever else runs on the machine only ever
// makes a measurement worse.
type summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	N      int     `json:"n"`
}

// summarize is the zero summary when there are no values.
func summarize(values []float64) summary {
	n := len(values)
	if n == 0 {
		return summary{}
	}
	sorted := slices.Sorted(slices.Values(values))
	return summary{Median: (sorted[(n-1)/2] + sorted[n/2]) / 2, Min: sorted[0], Max: sorted[n-1], N: n}
}

// paired summarizes a[i]/b[i]. The two were measured right after each other, so
// that the state of the machine, which drifts, is divided out.
func paired(a, b []float64) summary {
	ratios := make([]float64, min(len(a), len(b)))
	for i := range ratios {
		ratios[i] = a[i] / b[i]
	}
	return summarize(ratios)
}

// quantile is the smallest value that at least the share q of values does not
// exceed; 0 when there are none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return sorted[max(int(math.Ceil(q*float64(len(sorted))))-1, 0)]
}

// format writes median and range, each as verb says.
func (s summary) format(verb string) string {
	return fmt.Sprintf(verb+" ("+verb+"–"+verb+")", s.Median, s.Min, s.Max)
}

// scale is the summary of values times k plus d, for k over 0.
func (s summary) scale(k, d float64) summary {
	return summary{Median: s.Median*k + d, Min: s.Min*k + d, Max: s.Max*k + d, N: s.N}
}
