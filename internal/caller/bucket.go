package caller

import "time"

// bucket holds what may be spent at once: it fills within a minute and is full
// at first. Its limit is 0 when nothing bounds it. It has no lock.
type bucket struct {
	limit float64
	level float64
	at    time.Time // when level was right
}

// set changes the limit; what was spent stays spent.
func (b *bucket) set(limit int, now time.Time) {
	b.fill(now)
	if spent := b.limit - b.level; b.limit > 0 {
		b.level = float64(limit) - spent
	} else {
		b.level = float64(limit)
	}
	b.limit = float64(limit)
}

func (b *bucket) fill(now time.Time) {
	if b.at.IsZero() || now.After(b.at) {
		b.level = min(b.limit, b.level+b.limit*now.Sub(b.at).Minutes())
		b.at = now
	}
}

// lacks is how long until n can be taken; 0 when it can be now. never is true
// when it is more than there can ever be.
func (b *bucket) lacks(n float64, now time.Time) (wait time.Duration, never bool) {
	if b.limit == 0 {
		return 0, false
	}
	b.fill(now)
	if n > b.limit {
		return 0, true
	}
	if n <= b.level {
		return 0, false
	}
	return b.duration(n - b.level), false
}

// take spends n, which may leave less than nothing.
func (b *bucket) take(n float64, now time.Time) {
	if b.limit > 0 {
		b.fill(now)
		b.level = min(b.limit, b.level-n)
	}
}

// duration is how long it takes to fill by n.
func (b *bucket) duration(n float64) time.Duration {
	return time.Duration(n / b.limit * float64(time.Minute))
}

// Rate is one limit as a client may see it.
type Rate struct {
	Limit     int           // a minute; 0 when there is none
	Remaining int           // now
	Reset     time.Duration // until it is whole again
}

func (b *bucket) rate(now time.Time) Rate {
	if b.limit == 0 {
		return Rate{}
	}
	b.fill(now)
	return Rate{Limit: int(b.limit), Remaining: int(max(b.level, 0)), Reset: b.duration(b.limit - b.level)}
}
