package gpu

import (
	"os"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"infer/internal/gpu/gputest"
)

// exposition is /metrics as far as it is ours.
func exposition(tb testing.TB, c prometheus.Collector) string {
	tb.Helper()
	reg := prometheus.NewRegistry()
	reg.MustRegister(c)
	families, err := reg.Gather()
	if err != nil {
		tb.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&b, f); err != nil {
			tb.Fatal(err)
		}
	}
	return b.String()
}

func TestGoldenExposition(t *testing.T) {
	lines := append(gputest.A100(0), "devices 2", "gpu1.uuid GPU-1", "gpu1.name Tesla T4", "gpu1.total 16106127360", "gpu1.used 0", "event 0 13", "event 0 13")
	m, _ := start(t, lines...)
	await(t, m, "both events", func(s *look) bool { return s.xids[xid{"0", "GPU-0", 13}] == 2 })
	got := regexp.MustCompile(`(timestamp_seconds|busy_seconds_total\{.*\}|infer_gpu_seconds_total\{.*\}) [0-9].*`).
		ReplaceAllString(exposition(t, m), "$1 TIME")
	want, err := os.ReadFile("testdata/metrics.txt")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the exposition is not testdata/metrics.txt:\n%s", got)
	}
	problems, err := testutil.CollectAndLint(m)
	for _, p := range problems {
		if !strings.Contains(p.Metric, "gpu_utilization") { // the percent names are the seed's
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// What a GPU does not tell has no series: a 0 would be believed.
func TestUnknownIsAbsent(t *testing.T) {
	m, _ := start(t, "gpu0.uuid GPU-0", "gpu0.total 100", "gpu0.used 10")
	await(t, m, "a GPU", up)
	got := exposition(t, m)
	for _, name := range []string{"utilization", "busy_seconds", "power", "energy_joules_total{gpu", "temperature", "clock", "ecc", "recovery"} {
		for line := range strings.Lines(got) {
			if !strings.HasPrefix(line, "#") && strings.Contains(line, name) && !strings.Contains(line, `key=""`) {
				t.Errorf("%s although NVML has no answer", line)
			}
		}
	}
	if !strings.Contains(got, "infer_gpu_up 1") || !strings.Contains(got, `infer_gpu_memory_used_bytes{gpu="0",uuid="GPU-0"} 10`) {
		t.Errorf("what it tells is missing:\n%s", got)
	}
}

// Ten thousand scrapes while the GPU is watched leave nothing behind.
func TestScrapesLeakNothing(t *testing.T) {
	m, _ := start(t, gputest.A100(0)...)
	await(t, m, "a GPU", up)
	files := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(m)
	beforeFiles, before := files(), runtime.NumGoroutine()
	for range 10_000 {
		if _, err := reg.Gather(); err != nil {
			t.Fatal(err)
		}
	}
	if now := files(); now > beforeFiles+2 { // the worker may have the fake's file open
		t.Errorf("%d open files, %d before", now, beforeFiles)
	}
	if now := runtime.NumGoroutine(); now > before+2 { // those of the last Gather may still end
		t.Errorf("%d goroutines, %d before", now, before)
	}
}
