package simulate

import (
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// steady is traffic of one rate.
func steady(rate, seconds float64) Trace {
	return Trace{Name: "steady", Seconds: seconds, Prompt: 1e-9, Completion: 300, Rate: func(float64) float64 { return rate }}
}

// erlangC is the chance that a customer of an M/M/c queue waits, at a offered
// load in Erlang.
func erlangC(c int, a float64) float64 {
	b := 1.0 // Erlang B by its recurrence
	for n := 1; n <= c; n++ {
		b = a * b / (float64(n) + a*b)
	}
	rho := a / float64(c)
	return b / (1 - rho*(1-b))
}

// One replica with exponential answers is an M/M/c queue: its mean wait is
// Erlang's.
func TestErlangC(t *testing.T) {
	for _, load := range []float64{0.7, 0.85, 0.92} {
		cfg := Default()
		cfg.Slots, cfg.MaxReplicas, cfg.MaxQueue = 16, 1, 1<<20
		service := 300 / cfg.DecodeRate
		a := load * float64(cfg.Slots)
		res, err := Run(t.Context(), cfg, steady(a/service, 4*day), Builtin()[3])
		if err != nil {
			t.Fatal(err)
		}
		want := erlangC(cfg.Slots, a) * service / (float64(cfg.Slots) - a)
		got := res.WaitSeconds / float64(res.Started)
		t.Logf("load %v: mean wait %.4f s, Erlang C says %.4f s, %d requests", load, got, want, res.Started)
		if math.Abs(got-want) > 0.1*want+0.005 {
			t.Errorf("load %v: mean wait %.4f s, want %.4f s", load, got, want)
		}
	}
}

// Whatever the world, no request is lost or made, and no bound is passed.
func TestConservation(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cfg := Default()
		cfg.Seed = rapid.Uint64().Draw(t, "seed")
		cfg.Slots = rapid.IntRange(1, 8).Draw(t, "slots")
		cfg.MaxQueue = rapid.IntRange(0, 20).Draw(t, "queue")
		cfg.ColdStart = rapid.Float64Range(0, 300).Draw(t, "cold start")
		cfg.Grace = rapid.Float64Range(0, 60).Draw(t, "grace")
		cfg.Cooldown = rapid.Float64Range(0, 300).Draw(t, "cooldown")
		cfg.Stabilization = rapid.Float64Range(0, 300).Draw(t, "stabilization")
		cfg.MinReplicas = rapid.IntRange(0, 3).Draw(t, "min")
		cfg.MaxReplicas = cfg.MinReplicas + rapid.IntRange(1, 20).Draw(t, "max")
		rule := rapid.SampledFrom(Builtin()).Draw(t, "rule")
		rule.Type = rapid.SampledFrom([]string{AverageValue, Value}).Draw(t, "type")
		peak := rapid.Float64Range(0, 5).Draw(t, "peak")
		tr := Trace{Seconds: 3 * 3600, Prompt: 800, Completion: 300, Rate: func(at float64) float64 { return peak * (1 + math.Sin(at/900)) / 2 }}
		res, err := Run(t.Context(), cfg, tr, rule)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Completed + res.Rejected + res.Cut + res.Open; got != res.Arrived || res.Open < 0 {
			t.Errorf("%d arrived; %d completed, %d rejected, %d cut, %d open", res.Arrived, res.Completed, res.Rejected, res.Cut, res.Open)
		}
		if res.Late < 0 || res.Missed() > res.Arrived {
			t.Errorf("%d late, %d missed of %d", res.Late, res.Missed(), res.Arrived)
		}
		if res.ReplicaSeconds*float64(cfg.GPUs) > res.GPUSeconds+1e-6 {
			t.Errorf("%v s ready and only %v s paid", res.ReplicaSeconds, res.GPUSeconds)
		}
		for _, p := range res.Series {
			if p.Ready > cfg.MaxReplicas {
				t.Errorf("%d replicas ready at %v s, over %d", p.Ready, p.At, cfg.MaxReplicas)
			}
		}
	})
}

// The formula, with the average under AverageValue that can never pass two.
func TestDesired(t *testing.T) {
	for _, test := range []struct {
		metricType           string
		value, target        float64
		current, ready, want int
	}{
		{AverageValue, 95, 80, 4, 4, 2}, // average of four at 95 %
		{AverageValue, 380, 80, 4, 4, 5},
		{Value, 95, 80, 4, 4, 5},
		{AverageValue, 100, 80, 100, 100, 2},
		{AverageValue, 340, 80, 4, 4, 4}, // within 10 %
		{AverageValue, 0, 80, 4, 4, 0},
		{AverageValue, 13.5, 0.8, 1, 0, 17},
		{Value, 160, 80, 4, 1, 2}, // only ready ones count
	} {
		if got := Desired(test.metricType, test.value, test.target, 0.1, test.current, test.ready); got != test.want {
			t.Errorf("Desired(%+v) = %d", test, got)
		}
	}
}

// Down waits for the window, up is bounded by a step.
func TestBehaviour(t *testing.T) {
	rule := Builtin()[3]
	rule.Type = AverageValue
	cfg := Default()
	s := scaler{cfg: cfg}
	for _, test := range []struct {
		now, value float64
		current    int
		want       int
	}{
		{0, 80, 1, 5},      // at most four more
		{15, 80, 10, 20},   // or double
		{30, 0, 100, 100},  // the wish for 100 holds
		{314, 0, 100, 100}, // until its window ends
		{316, 0, 100, 1},
	} {
		if got := s.hpa(test.now, test.value, &rule, test.current, test.current); got != test.want {
			t.Errorf("at %v s with %v on %d: %d, want %d", test.now, test.value, test.current, got, test.want)
		}
	}
}

func TestReadCSV(t *testing.T) {
	tr, err := ReadCSV("x", strings.NewReader("time,prompt_tokens,completion_tokens,rate\n0,100,10,2\n60,300,30,4\n120,0,0,0\n"))
	if err != nil || tr.Seconds != 120 || tr.Rate(30) != 2 || tr.Rate(60) != 4 || tr.Rate(120) != 0 || math.Abs(tr.Prompt-700./3) > 1e-9 {
		t.Errorf("%+v, %v", tr, err)
	}
	tr, err = ReadCSV("x", strings.NewReader("time,prompt_tokens,completion_tokens\n0,100,10\n5,1,1\n"))
	if err != nil || len(tr.Arrivals) != 2 || tr.Seconds != 6 {
		t.Errorf("%+v, %v", tr, err)
	}
	res, err := Run(t.Context(), Default(), tr, Builtin()[0])
	if err != nil || res.Arrived != 2 {
		t.Errorf("%d arrived, %v", res.Arrived, err)
	}
	for text, want := range map[string]string{"": "header", "time,rate\n": "prompt_tokens", "time,prompt_tokens,completion_tokens\n": "no traffic",
		"time,prompt_tokens,completion_tokens\n5,1,1\n4,1,1\n": "line 3: time goes back",
		"time,prompt_tokens,completion_tokens\n5,x,1\n":        "line 2: prompt_tokens"} {
		if _, err := ReadCSV("x", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestReadRule(t *testing.T) {
	r, err := ReadRule([]byte("name: mine\nquery: sum(running) / slots + max(waiting)\ntarget: 0.7\ntype: Value\n"))
	if err != nil || r.Name != "mine" || r.Type != Value {
		t.Errorf("%+v, %v", r, err)
	}
	for text, want := range map[string]string{"query: sum(runing)\n": "runing", "target: -1": "target", "type: Utilization": "type", "threshold: 3": "threshold"} {
		if _, err := ReadRule([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// The bound: 24 hours of up to 1,000 replicas in 10 s.
func BenchmarkDay(b *testing.B) {
	cfg := Default()
	peak := 0.8 * 1000 * float64(cfg.Slots) / (300 / cfg.DecodeRate)
	for b.Loop() {
		res, err := Run(b.Context(), cfg, Traces(peak)[0], Builtin()[3])
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(res.Arrived), "requests")
		b.ReportMetric(float64(res.MostReplicas), "replicas")
	}
}
