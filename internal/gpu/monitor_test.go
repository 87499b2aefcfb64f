package gpu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"infer/internal/engine"
	"infer/internal/gpu/gputest"
)

func TestValuesFollowTheDriver(t *testing.T) {
	lines := gputest.A100(0)
	m, _ := start(t, lines...)
	s := await(t, m, "97 %", func(s *look) bool { return up(s) && s.devices[0].utilization == 0.97 })
	r := s.devices[0]
	if r.watts != 300 || r.celsius != 61 || r.memory.used != 40<<30 || r.memory.reserved != 512<<20 || !r.memory.exact || r.reasons != 4 {
		t.Errorf("reading %+v", r)
	}
	if s.driver != "580.95.05" || s.cuda != "13.0" {
		t.Errorf("driver %q, CUDA %q", s.driver, s.cuda)
	}
	set(t, gputest.With(lines, "gpu0.util 10", "gpu0.energy 5002000")...)
	await(t, m, "10 % and 2 J", func(s *look) bool { return up(s) && s.devices[0].utilization == 0.1 && s.devices[0].joules == 2 })
}

// The ring as drivers keep it: entries that nobody filled, values over 100, a
// clock of its own; and dry, when go-nvml gives 120 zeros with NOT_FOUND.
func TestRing(t *testing.T) {
	base := []string{"gpu0.uuid GPU-0", "gpu0.util 7", "gpu0.total 100", "gpu0.used 1", "gpu0.tail 9"}
	ring := append(base, "gpu0.sample 5000000 50", "gpu0.sample 6000000 100")
	m, _ := start(t, ring...)
	await(t, m, "the dry ring's instant value", func(s *look) bool { return up(s) && s.devices[0].utilization == 0.07 })
	before := m.now.Load().devices[0].busy
	if before > 30 {
		t.Fatalf("%v busy seconds after a moment at 7 %%", before)
	}
	set(t, append(ring, "gpu0.sample 906000000 50", "gpu0.sample 907000000 4711")...)
	// 900 s at 50 %, less the moments that the instant value has stood for.
	s := await(t, m, "the new sample", func(s *look) bool { return up(s) && s.devices[0].busy > before+100 })
	if got := s.devices[0].busy; got < 400 || got > 460 {
		t.Errorf("%v busy seconds, want about 450", got)
	}
}

func TestLiveCountersAreShared(t *testing.T) {
	set(t, "gpu0.uuid GPU-0", "gpu0.total 100", "gpu0.used 1", "gpu0.live 60", "gpu0.watts 300", "devices 2",
		"gpu1.uuid GPU-1", "gpu1.total 100", "gpu1.used 1", "gpu1.live 20", "gpu1.watts 100")
	m := New(Config{Library: fake.Path, Period: 20 * time.Millisecond}, quiet())
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	l := m.Ledger()
	a, b := l.Begin("alice", "m"), l.Begin("bob", "m")
	// Looks in which no token came are shared evenly, and a busy machine may
	// have many of them.
	await(t, m, "a second of work, of which alice with three times the tokens has twice as much as bob", func(s *look) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		a.Tokens(3)
		b.Tokens(1)
		alice, bob := l.totals[payer{"alice", "m"}], l.totals[payer{"bob", "m"}]
		return up(s) && s.devices[0].busy > 0.6 && bob.joules > 0 && alice.joules > 2*bob.joules
	})
	a.End()
	b.End()
	worked := m.now.Load().devices[0].busy
	await(t, m, "more work", func(s *look) bool { return up(s) && s.devices[0].busy > worked+0.2 })
	stop() // the ledger may be a look ahead of what is published
	if err := <-done; err != nil {
		t.Errorf("Run() = %v", err)
	}
	<-m.ended
	var device cost
	for _, r := range m.now.Load().devices {
		device = device.plus(cost{r.busy, r.joules})
	}
	if got := l.total(); !near(got.seconds, device.seconds) || !near(got.joules, device.joules) {
		t.Errorf("shared %+v, the GPUs counted %+v", got, device)
	}
}

// A call that hangs holds up nothing: neither a scrape nor the end.
func TestCallThatHangs(t *testing.T) {
	lines := gputest.A100(0)
	m, j := start(t, lines...)
	await(t, m, "a GPU", up)
	set(t, append(lines, "delay.nvmlDeviceGetMemoryInfo_v2 10000")...)
	limit := time.After(30 * time.Second)
	for _, fresh := m.fresh(); fresh; _, fresh = m.fresh() {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-limit:
			t.Fatal("the snapshot never became stale")
		}
	}
	began := time.Now()
	got := exposition(t, m)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the scrape took %v", took)
	}
	for _, want := range []string{"infer_gpu_up 0", "infer_gpu_last_sample_timestamp_seconds ", "infer_gpu_busy_seconds_total{"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing:\n%s", want, got)
		}
	}
	if strings.Contains(got, "\ngpu_utilization") {
		t.Errorf("a stale value is told:\n%s", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := m.Memory(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Memory() = %v, want the deadline", err)
	}
	set(t, lines...)
	await(t, m, "the GPU again", func(s *look) bool { return up(s) && time.Since(s.at) < m.patience() && j.count("does not answer") > 0 })
	if n := j.count("does not answer"); n != 1 {
		t.Errorf("the log tells of it %d times", n)
	}
}

func TestEndWhileACallHangs(t *testing.T) {
	set(t, append(gputest.A100(0), "delay.nvmlDeviceGetName 10000")...)
	m := New(Config{Library: fake.Path, Period: 20 * time.Millisecond}, quiet())
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	cancel()
	began := time.Now()
	if err := <-done; err != nil {
		t.Errorf("Run() = %v", err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("the end took %v", took)
	}
	<-m.ended // the next test has the fake for itself
}

func TestFailures(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change []string
		want   string
	}{
		{"lost after some calls", []string{"lost_after 60"}, "does not answer"},
		{"one of two lost", []string{"gpu1.lost 1"}, "GPU 1"},
		{"XID 79", []string{"event 0 79"}, "XID 79 of GPU 0"},
		{"memory errors", []string{"gpu0.ecc_uncorrected 1"}, "ECC cannot correct"},
		{"the driver's advice", []string{"gpu0.field230 2"}, "asks for a reboot of GPU 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			lines := append(append(gputest.A100(0), gputest.A100(1)...), "devices 2")
			m, j := start(t, lines...)
			await(t, m, "two GPUs", func(s *look) bool { return up(s) && len(s.devices) == 2 })
			if f := m.Failure(); f != nil {
				t.Fatalf("Failure() = %v of healthy GPUs", f)
			}
			set(t, gputest.With(lines, tt.change...)...)
			failed := await(t, m, "the failure", func(*look) bool { return m.Failure() != nil })
			await(t, m, "the look after it", func(s *look) bool { return s != failed }) // a failure is known before it is logged and published
			f := m.Failure()
			if f.Cause != engine.CauseGPULost || !strings.Contains(f.Message, tt.want) || !strings.Contains(f.Remedy, "another node") {
				t.Errorf("Failure() = %+v, want %q", f, tt.want)
			}
			if err := m.Guard(t.Context(), &model{}, Rules{}); !errors.Is(err, f) {
				t.Errorf("Guard() = %v, want the failure", err)
			}
			if n := j.count("gpu lost"); n != 1 {
				t.Errorf("the log tells of it %d times", n)
			}
			if tt.name == "one of two lost" {
				got := exposition(t, m)
				if !strings.Contains(got, `infer_gpu_device_up{gpu="1",uuid="GPU-1"} 0`) || !strings.Contains(got, `gpu_utilization{gpu="0",uuid="GPU-0"} 97`) ||
					strings.Contains(got, `gpu_utilization{gpu="1"`) || !strings.Contains(got, "infer_gpu_up 0") {
					t.Errorf("the lost GPU must not hide the other, nor look well:\n%s", got)
				}
			}
		})
	}
}

// What an application has done to itself, and heat, are no failures.
func TestWarnings(t *testing.T) {
	lines := gputest.A100(0)
	m, j := start(t, lines...)
	await(t, m, "a GPU", up)
	set(t, append(gputest.With(lines, "gpu0.reasons 64", "gpu0.ecc_corrected 9"), "event 0 13", "event 0 31", "event 0 13")...)
	await(t, m, "the events and the heat", func(s *look) bool {
		return s.xids[xid{"0", "GPU-0", 13}] == 2 && s.xids[xid{"0", "GPU-0", 31}] == 1 && s.devices[0].reasons == 64
	})
	if f := m.Failure(); f != nil {
		t.Errorf("Failure() = %v", f)
	}
	if xids, heat := j.count("not the GPU's own"), j.count("slowed down"); xids != 2 || heat != 1 {
		t.Errorf("%d warnings of XIDs and %d of heat, want 2 and 1", xids, heat)
	}
}

// After a reload of the driver handles are taken anew, and counters go on.
func TestDriverReload(t *testing.T) {
	lines := gputest.A100(0)
	m, _ := start(t, lines...)
	await(t, m, "some work", func(s *look) bool { return up(s) && s.devices[0].busy > 0.1 })
	set(t, append(lines, "fail.nvmlDeviceGetPowerUsage 9", "fail.nvmlInit_v2 9")...)
	absent := func(s *look) bool { return strings.Contains(s.reason, "nvmlInit") }
	s := await(t, m, "the driver's absence", absent)
	last := s.answered
	s = await(t, m, "its absence in another look", func(now *look) bool { return now != s && absent(now) })
	if s.answered.IsZero() || s.answered != last || !s.answered.Before(s.at) {
		t.Errorf("an absent driver answered at %v, then at %v", last, s.answered)
	}
	if want := "infer_gpu_last_sample_timestamp_seconds " + strconv.FormatFloat(float64(last.UnixMilli())/1e3, 'g', -1, 64) + "\n"; !strings.Contains(exposition(t, m), want) {
		t.Errorf("%q is missing:\n%s", want, exposition(t, m))
	}
	if len(s.devices) != 1 || !s.devices[0].lost || s.devices[0].busy < 0.1 {
		t.Errorf("the counters of what is gone: %+v", s.devices)
	}
	set(t, gputest.With(lines, "gpu0.energy 1000")...)
	s = await(t, m, "the driver again", up)
	if r := s.devices[0]; r.busy < 0.1 || r.joules < 0 {
		t.Errorf("the counters fell: %+v", r)
	}
	if f := m.Failure(); f != nil {
		t.Errorf("Failure() = %v after a short reload", f)
	}
}

func TestMIG(t *testing.T) {
	lines := append(gputest.A100(0), "gpu0.mig 2", "gpu0.mig0.uuid MIG-a", "gpu0.mig0.total 1000", "gpu0.mig0.used 10",
		"gpu0.mig1.uuid MIG-b", "gpu0.mig1.total 1000", "gpu0.mig1.used 20")
	m, _ := start(t, lines...)
	await(t, m, "the instances", func(s *look) bool { return up(s) && len(s.devices) == 3 })
	got := exposition(t, m)
	if !strings.Contains(got, `infer_gpu_memory_used_bytes{gpu="0:1",uuid="MIG-b"} 20`) {
		t.Errorf("the memory of an instance is missing:\n%s", got)
	}
	if strings.Contains(got, "\ngpu_utilization{") || strings.Contains(got, "infer_gpu_busy_seconds_total{") {
		t.Errorf("a divided GPU has no utilization:\n%s", got)
	}
}

// An older driver lacks symbols, and a call to one would end the process.
func TestOldDriver(t *testing.T) {
	if os.Getenv("GPU_TEST_LIBRARY") != "" { // the process that this test starts
		m, _ := start(t, gputest.A100(0)...)
		s := await(t, m, "an old driver's GPU", func(s *look) bool { return up(s) && s.looks() })
		if r := s.devices[0]; r.utilization != 0.97 || r.celsius != 61 || r.memory.exact || known(r.watts) || known(r.joules) || r.limits || known(r.uncorrected) {
			t.Errorf("reading %+v", r)
		}
		return
	}
	dir := t.TempDir()
	old, err := gputest.Build(t.Context(), dir, "nvmlSystemGetCudaDriverVersion_v2", "nvmlDeviceGetSamples", "nvmlDeviceGetMemoryInfo_v2",
		"nvmlDeviceGetPowerUsage", "nvmlDeviceGetTotalEnergyConsumption", "nvmlDeviceGetTemperatureV",
		"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetFieldValues", "nvmlDeviceGetMigMode", "nvmlEventSetCreate")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOldDriver$", "-test.count=1")
	cmd.Env = append(os.Environ(), "GPU_TEST_LIBRARY="+old.Path)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v\n%s", err, out)
	}
}

func (s *look) looks() bool { return len(s.devices) == 1 && known(s.devices[0].celsius) }

func TestNoLibrary(t *testing.T) {
	m, j := run(t, Config{Library: t.TempDir() + "/libnvidia-ml.so.1", Period: 20 * time.Millisecond})
	await(t, m, "a look", func(s *look) bool { return !s.at.IsZero() })
	<-m.ended
	if got := exposition(t, m); !strings.Contains(got, "infer_gpu_up 0") || strings.Contains(got, "timestamp") {
		t.Errorf("exposition:\n%s", got)
	}
	if all, err := m.Memory(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("Memory() = %v, %v; want none", all, err)
	}
	if n := j.count("no gpu is watched"); n != 1 {
		t.Errorf("%d lines tell of it, want 1", n)
	}
}
