package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// report prints the medians, and the ratios to the TCP copy with the same
// upstream.
func (b *bench) report() {
	what := map[string]bool{}
	for _, m := range b.numbers {
		for name := range m {
			what[name] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(what)) {
		_, _ = fmt.Fprintf(b.out, "\n%s\n", name)
		for _, arm := range b.arms {
			values, ok := b.numbers[arm][name]
			if !ok {
				continue
			}
			line := fmt.Sprintf("  %-10s %9.2f", arm, median(values))
			if base := b.numbers[anchor(arm)][name]; len(base) == len(values) && strings.HasPrefix(name, "CPU") {
				line += fmt.Sprintf("   %.2f × the copy", median(ratios(values, base)))
			}
			_, _ = fmt.Fprintf(b.out, "%s   of %s\n", line, rounded(values))
		}
	}
}

// anchor is the copy that an arm is compared with.
func anchor(arm string) string {
	if strings.HasSuffix(arm, "-tcp") {
		return "copy-tcp"
	}
	return "copy"
}

// ratios are taken round by round, so that the drift of the machine is divided
// out.
func ratios(values, base []float64) []float64 {
	all := make([]float64, len(values))
	for i := range values {
		all[i] = values[i] / base[i]
	}
	return all
}

func rounded(values []float64) string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = fmt.Sprintf("%.2f", v)
	}
	return strings.Join(all, " ")
}
