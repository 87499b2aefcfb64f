package gpu

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// payer is who pays: a caller's key and the model that it asked. The zero
// payer is nobody: what GPUs use while no request runs.
type payer struct{ key, model string }

// cost is GPU-seconds and joules.
type cost struct{ seconds, joules float64 }

func (c cost) times(f float64) cost { return cost{c.seconds * f, c.joules * f} }
func (c cost) plus(d cost) cost     { return cost{c.seconds + d.seconds, c.joules + d.joules} }

// Ledger shares what the GPUs use among the requests that run: from one look
// to the next by their share of the tokens, prompt and completion, and evenly
// where no token came. Nothing is lost and nothing counted twice: the sums
// over all keys and models, nobody's included, are the GPUs' own counters.
type Ledger struct {
	mu       sync.Mutex
	open     map[*Bill]bool
	over     map[payer]*done // ended since the last look
	totals   map[payer]cost
	settled  cost // of the GPUs' counters
	perToken cost // of the last look that saw tokens
}

// done is what ended between two looks.
type done struct{ tokens, requests float64 }

// Bill is what one request costs.
type Bill struct {
	l      *Ledger
	payer  payer
	tokens atomic.Int64
	seen   int64 // of tokens, at the last look
	cost   cost
}

func newLedger() *Ledger {
	return &Ledger{open: map[*Bill]bool{}, over: map[payer]*done{}, totals: map[payer]cost{{}: {}}}
}

// Begin opens the bill of a request that got its slot. key and model must be
// from bounded sets: they are labels.
func (l *Ledger) Begin(key, model string) *Bill {
	b := &Bill{l: l, payer: payer{key, model}}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open[b] = true
	return b
}

// Tokens adds what the request was read or written. It never blocks.
func (b *Bill) Tokens(n int) { b.tokens.Add(int64(max(n, 0))) }

// Cost is what the request has cost so far, in GPU-seconds and joules. What
// came after the last look is reckoned with the price of a token then.
func (b *Bill) Cost() (seconds, joules float64) {
	b.l.mu.Lock()
	defer b.l.mu.Unlock()
	c := b.cost.plus(b.l.perToken.times(float64(b.tokens.Load() - b.seen)))
	return c.seconds, c.joules
}

// End closes the bill.
func (b *Bill) End() {
	b.l.mu.Lock()
	defer b.l.mu.Unlock()
	if !b.l.open[b] {
		return
	}
	delete(b.l.open, b)
	d := b.l.over[b.payer]
	if d == nil {
		d = &done{}
		b.l.over[b.payer] = d
	}
	d.tokens += float64(b.tokens.Load() - b.seen)
	d.requests++
}

// settle shares what the GPUs' counters grew by since the last time.
func (l *Ledger) settle(seconds, joules float64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	used := cost{max(seconds-l.settled.seconds, 0), max(joules-l.settled.joules, 0)}
	l.settled = l.settled.plus(used)
	tokens, requests := map[*Bill]float64{}, float64(len(l.open))
	var sum float64
	for b := range l.open {
		now := b.tokens.Load()
		tokens[b], b.seen = float64(now-b.seen), now
		sum += tokens[b]
	}
	for _, d := range l.over {
		sum += d.tokens
		requests += d.requests
	}
	share := func(ofTokens, ofRequests float64) cost {
		if sum > 0 {
			return used.times(ofTokens / sum)
		}
		return used.times(ofRequests / requests)
	}
	if sum > 0 {
		l.perToken = used.times(1 / sum)
	}
	for b := range l.open {
		part := share(tokens[b], 1)
		b.cost = b.cost.plus(part)
		l.totals[b.payer] = l.totals[b.payer].plus(part)
	}
	for p, d := range l.over {
		l.totals[p] = l.totals[p].plus(share(d.tokens, d.requests))
	}
	clear(l.over)
	if requests == 0 {
		l.totals[payer{}] = l.totals[payer{}].plus(used)
	}
}

var (
	descSeconds = prometheus.NewDesc("infer_gpu_seconds_total", "Busy seconds of GPUs by who caused them; without a key while no request ran. The sum is that of infer_gpu_busy_seconds_total.", []string{"key", "model"}, nil)
	descEnergy  = prometheus.NewDesc("infer_energy_joules_total", "Energy of GPUs by who caused it; without a key while no request ran. The sum is that of infer_gpu_energy_joules_total.", []string{"key", "model"}, nil)
)

// copied are the totals as they are now.
func (l *Ledger) copied() map[payer]cost {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.totals)
}

// collect tells the totals. Whoever takes them from ch may be slow, which no
// request must wait for.
func (l *Ledger) collect(ch chan<- prometheus.Metric) {
	for p, c := range l.copied() {
		ch <- prometheus.MustNewConstMetric(descSeconds, prometheus.CounterValue, c.seconds, p.key, p.model)
		ch <- prometheus.MustNewConstMetric(descEnergy, prometheus.CounterValue, c.joules, p.key, p.model)
	}
}

func sortXIDs(xids map[xid]float64) []xid {
	all := make([]xid, 0, len(xids))
	for x := range xids {
		all = append(all, x)
	}
	slices.SortFunc(all, func(a, b xid) int { return cmp.Or(cmp.Compare(a.gpu, b.gpu), cmp.Compare(a.number, b.number)) })
	return all
}
