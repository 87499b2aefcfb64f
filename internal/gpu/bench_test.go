package gpu

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"infer/internal/gpu/gputest"
)

// BenchmarkScrape scrapes while two GPUs are watched at a hundred times the
// usual rate and requests come and go. It reports the 99th percentile.
func BenchmarkScrape(b *testing.B) {
	m, _ := start(b, append(append(gputest.A100(0), gputest.A100(1)...), "devices 2")...)
	await(b, m, "the GPUs", up)
	reg := prometheus.NewRegistry()
	reg.MustRegister(m)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				bill := m.Ledger().Begin("anonymous", "m")
				bill.Tokens(10)
				bill.End()
			}
		}
	}()
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		if _, err := reg.Gather(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
	}
	close(stop)
	<-stopped
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1e3, "p99-ms")
}

// BenchmarkSampler reports what share of a core the Monitor takes at its usual
// period, by the CPU seconds of this process over ten seconds.
func BenchmarkSampler(b *testing.B) {
	set(b, append(gputest.A100(0), "gpu0.live 60")...)
	m, _ := run(b, Config{Library: fake.Path})
	await(b, m, "a GPU", up)
	for b.Loop() {
		before, began := cpu(b), time.Now()
		<-time.After(10 * time.Second)
		b.ReportMetric(100*(cpu(b)-before).Seconds()/time.Since(began).Seconds(), "%core")
	}
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
