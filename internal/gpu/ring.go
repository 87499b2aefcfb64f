package gpu

import (
	"cmp"
	"slices"
	"time"
)

// sample is an entry of the driver's ring: what share of the time until now
// something ran, in percent. The clock is the driver's own, microseconds since
// boot or since 1970.
type sample struct {
	micros  uint64
	percent uint32
}

// meter makes a mean that loses nothing between two looks out of the driver's
// ring of samples.
type meter struct {
	last    uint64        // the newest sample that was seen, in the driver's clock
	covered time.Duration // after last, counted from the instant value while the ring was dry
	seconds float64       // busy, since the first look
	begun   bool
}

// add takes the samples that are newer than last, and what the instant value
// was when there are none. passed is the time since the look before. It
// returns the mean since then, from 0 to 1, and unknown when nothing tells.
func (m *meter) add(samples []sample, instant float64, passed time.Duration) float64 {
	samples = m.usable(samples)
	first := !m.begun
	m.begun = m.begun || len(samples) > 0 || known(instant)
	if len(samples) == 0 {
		if known(instant) && !first {
			m.seconds += instant * passed.Seconds()
			m.covered += passed
		}
		return instant
	}
	// What is older than the first look is no work of ours, and how long the
	// ring's first entry lasted nobody knows.
	from := m.last
	if first || from == 0 {
		from = samples[0].micros
	}
	from += uint64(m.covered.Microseconds())
	var busy, all float64
	for _, s := range samples {
		if s.micros > from {
			span := float64(s.micros-from) / 1e6
			busy += span * float64(s.percent) / 100
			all += span
			from = s.micros
		}
	}
	if !first {
		m.seconds += busy
	}
	m.last, m.covered = samples[len(samples)-1].micros, 0
	if all == 0 {
		return float64(samples[len(samples)-1].percent) / 100
	}
	return busy / all
}

// usable drops the entries that the driver has not filled, values that are no
// share, and what was seen, and sorts by time.
func (m *meter) usable(samples []sample) []sample {
	samples = slices.DeleteFunc(slices.Clone(samples), func(s sample) bool {
		return s.micros == 0 || s.percent > 100 || s.micros <= m.last
	})
	slices.SortFunc(samples, func(a, b sample) int { return cmp.Compare(a.micros, b.micros) })
	return samples
}

// energy is the counter of one GPU's joules.
type energy struct {
	total   float64 // joules since the driver was loaded, at the look before
	joules  float64 // since the first look
	counted bool    // total is known
	begun   bool
}

// add takes the driver's own counter, and the power when it has none.
func (e *energy) add(total, watts float64, passed time.Duration) float64 {
	switch {
	case known(total):
		if e.counted && total >= e.total { // less after a reload of the driver
			e.joules += total - e.total
		}
		e.total, e.counted, e.begun = total, true, true
	case known(watts):
		if e.begun {
			e.joules += watts * passed.Seconds()
		}
		e.counted, e.begun = false, true
	case !e.begun:
		return unknown
	}
	return e.joules
}
