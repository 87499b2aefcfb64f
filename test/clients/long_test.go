//go:build soak

package clients

import (
	"os"
	"testing"
	"time"
)

// TestLongSoak keeps mixed load with leaving clients up for INFER_SOAK (a
// duration, one minute unless set) and fits a line through the memory of the
// second half: it must be level.
func TestLongSoak(t *testing.T) {
	length := time.Minute
	if v := os.Getenv("INFER_SOAK"); v != "" {
		var err error
		if length, err = time.ParseDuration(v); err != nil {
			t.Fatalf("INFER_SOAK: %v", err)
		}
	}
	s := ready(t, "--slots=4", "--context=512", "--max-queue=256")
	s.mix(t, 200, 16)
	var at, memory []float64
	for began := time.Now(); time.Since(began) < length; {
		s.mix(t, 50, 16)
		if elapsed := time.Since(began); elapsed > length/2 {
			at = append(at, elapsed.Minutes())
			memory = append(memory, s.metric("process_resident_memory_bytes")/(1<<20))
		}
	}
	slope := slope(at, memory)
	grown := slope * (at[len(at)-1] - at[0])
	t.Logf("%d samples in the second half of %v: %.2f MiB a minute, %.1f MiB in all, last %.1f MiB", len(at), length, slope, grown, memory[len(memory)-1])
	if grown > 24 {
		t.Errorf("memory grew by %.1f MiB in the second half of %v", grown, length)
	}
	if h := s.settle(); h.goroutines > 60 || h.files > 60 {
		t.Errorf("after the load the server holds %v", h)
	}
}

// slope is that of the least-squares line through points.
func slope(x, y []float64) float64 {
	var mx, my, sxy, sxx float64
	for i := range x {
		mx, my = mx+x[i]/float64(len(x)), my+y[i]/float64(len(y))
	}
	for i := range x {
		sxy += (x[i] - mx) * (y[i] - my)
		sxx += (x[i] - mx) * (x[i] - mx)
	}
	if sxx == 0 {
		return 0
	}
	return sxy / sxx
}
