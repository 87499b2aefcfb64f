package gpu

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"infer/internal/gpu/gputest"
)

// Of BenchmarkScrape: what a busy replica does to the ledger.
const (
	scrapeCallers    = 20
	scrapeInFlight   = 64
	scrapeOperations = 1000 // a second, each the tokens of one step, or an end and a begin
)

// BenchmarkScrape scrapes while two GPUs are watched at their usual period, 64
// requests run, and their bills are written to a thousand times a second. It
// reports percentiles of one scrape in ten milliseconds, and beside them those
// of as many series that never change: what is not more than those is the
// machine and the registry, not the collector.
func BenchmarkScrape(b *testing.B) {
	set(b, append(append(gputest.A100(0), gputest.A100(1)...), "devices 2")...)
	m, _ := run(b, Config{Library: fake.Path})
	await(b, m, "the GPUs", up)
	reg := prometheus.NewRegistry()
	reg.MustRegister(m)
	ctx, cancel := context.WithCancel(b.Context())
	var wg sync.WaitGroup
	wg.Go(func() { spend(ctx, m.Ledger()) })
	await(b, m, "the costs of all callers", func(*look) bool { return len(m.ledger.copied()) > scrapeCallers })
	constant := prometheus.NewRegistry()
	constant.MustRegister(remember(m))
	var took, control []time.Duration
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for b.Loop() {
		<-tick.C
		took = append(took, gather(b, reg))
		<-tick.C
		control = append(control, gather(b, constant))
	}
	cancel()
	wg.Wait()
	for unit, all := range map[string][]time.Duration{"": took, "constant-": control} {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)*50/100].Microseconds())/1e3, unit+"p50-ms")
		b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1e3, unit+"p99-ms")
	}
	b.ReportMetric(load(b), "load1")
}

func gather(b *testing.B, reg *prometheus.Registry) time.Duration {
	began := time.Now()
	if _, err := reg.Gather(); err != nil {
		b.Fatal(err)
	}
	return time.Since(began)
}

// remembered are series that are what they once were.
type remembered []prometheus.Metric

func remember(c prometheus.Collector) (all remembered) {
	ch := make(chan prometheus.Metric)
	go func() { c.Collect(ch); close(ch) }()
	for m := range ch {
		all = append(all, m)
	}
	return all
}

func (r remembered) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(r, ch) }
func (r remembered) Collect(ch chan<- prometheus.Metric) {
	for _, m := range r {
		ch <- m
	}
}

// spend keeps scrapeInFlight bills of all callers open, and ends each after
// a hundred steps.
func spend(ctx context.Context, l *Ledger) {
	var bills [scrapeInFlight]*Bill
	begin := func(i int) { bills[i] = l.Begin(fmt.Sprintf("key%d", i%scrapeCallers), "m") }
	for i := range bills {
		begin(i)
	}
	tick := time.NewTicker(time.Second / scrapeOperations)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		i := n % scrapeInFlight
		bills[i].Tokens(1)
		if n%100 == 0 {
			bills[i].Cost()
			bills[i].End()
			begin(i)
		}
	}
}

// load is the machine's load average, without which a percentile says nothing.
func load(b *testing.B) float64 {
	b.Helper()
	var one float64
	text, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		_, err = fmt.Sscan(string(text), &one)
	}
	if err != nil {
		b.Fatal(err)
	}
	return one
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
