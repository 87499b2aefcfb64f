package gpu

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func near(got, want float64) bool { return math.Abs(got-want) < 1e-9 }

func TestMeter(t *testing.T) {
	var m meter
	const boot = 5_000_000 // the driver's clock began with the machine
	if got := m.add([]sample{{boot, 50}, {boot + 1e6, 100}}, unknown, 0); !near(got, 1) || m.seconds != 0 {
		t.Errorf("first look: mean %v and %v s; want 1 and none of ours", got, m.seconds)
	}
	// Unsorted, an entry that was seen, one that nobody filled, one over 100.
	got := m.add([]sample{{boot + 4e6, 50}, {0, 0}, {boot + 2e6, 100}, {boot + 1e6, 9}, {boot + 3e6, 4711}}, unknown, 3*time.Second)
	if !near(got, 2.0/3) || !near(m.seconds, 2) {
		t.Errorf("mean %v and %v s; want 2/3 and 2: one second at 100 %% and two at 50", got, m.seconds)
	}
	// A dry ring: the instant value stands in, and is not counted again.
	if got := m.add(nil, 0.25, 4*time.Second); got != 0.25 || !near(m.seconds, 3) {
		t.Errorf("dry: mean %v and %v s; want 0.25 and 3", got, m.seconds)
	}
	if got := m.add([]sample{{boot + 9e6, 100}}, unknown, time.Second); !near(got, 1) || !near(m.seconds, 4) {
		t.Errorf("after the drought: mean %v and %v s; want 1 and 4", got, m.seconds)
	}
	if got := m.add(nil, unknown, time.Second); known(got) || !near(m.seconds, 4) {
		t.Errorf("nothing to be had: mean %v and %v s; want unknown and 4", got, m.seconds)
	}
}

// However often one looks, and whatever one misses in between, the busy
// seconds are the same.
func TestMeterLosesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		percents := rapid.SliceOfN(rapid.Uint32Range(0, 100), 2, 60).Draw(t, "percents")
		var all []sample
		var want float64
		for i, p := range percents {
			all = append(all, sample{uint64(1e6 + i*166_667), p})
			if i > 0 {
				want += float64(p) / 100 * 0.166667
			}
		}
		var m meter
		m.add(all[:1], unknown, 0)
		for seen := 1; seen < len(all); {
			seen += rapid.IntRange(1, 9).Draw(t, "step")
			m.add(all[:min(seen, len(all))], unknown, time.Second)
		}
		if math.Abs(m.seconds-want) > 1e-6 {
			t.Fatalf("%v busy seconds, want %v", m.seconds, want)
		}
	})
}

func TestEnergy(t *testing.T) {
	var e energy
	if got := e.add(unknown, unknown, 0); known(got) {
		t.Errorf("%v joules of a GPU that tells nothing; want unknown", got)
	}
	e.add(1000, 300, 0)
	if got := e.add(1500, 300, time.Second); got != 500 {
		t.Errorf("%v joules, want 500", got)
	}
	if got := e.add(20, 300, time.Second); got != 500 {
		t.Errorf("after a reload %v joules, want 500", got)
	}
	var p energy
	p.add(unknown, 300, 0)
	if got := p.add(unknown, 200, 2*time.Second); got != 400 {
		t.Errorf("from the power: %v joules, want 400", got)
	}
}
