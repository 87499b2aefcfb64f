package gpu

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// thoroughEvery is how many looks there are to one at what changes slowly.
const thoroughEvery = 5

// read looks at every GPU. One that is lost does not hide the others. The
// error says that something is gone.
func (w *worker) read() (snapshot, error) {
	thorough := w.looks%thoroughEvery == 0
	w.looks++
	w.fail(w.hear(w.lib.heard()))
	var s snapshot
	var gone error
	for _, d := range w.lib.devices {
		c := w.known[d.uuid]
		if c == nil {
			c = &counters{ecc: unknown, last: blank(d.index, d.uuid, d.name)}
			w.known[d.uuid] = c
		}
		r, err := w.lib.read(d, c, time.Now(), thorough)
		if err != nil {
			gone = fmt.Errorf("GPU %s: %w", d.index, err)
			r = onlyCounted(c.last)
		} else if r.mig {
			c.last = r
		}
		if err == nil {
			w.heard = time.Now()
		}
		w.fail(w.judge(r, c))
		s.devices = append(s.devices, r)
	}
	s.driver, s.cuda = w.lib.versions()
	s.at, s.answered, s.xids = time.Now(), w.heard, w.told()
	switch {
	case gone != nil:
		s.reason = gone.Error()
	case len(s.devices) == 0:
		s.reason = "the driver knows of no GPU"
	default:
		w.working = s.at
	}
	w.settle()
	return s, gone
}

// settle shares what was used since the last time among the requests.
func (w *worker) settle() {
	var seconds, joules float64
	for _, c := range w.known {
		seconds += c.meter.seconds
		joules += c.energy.joules
	}
	w.ledger.settle(seconds, joules)
}

func (w *worker) told() map[xid]float64 { return maps.Clone(w.xids) }

// counted are the GPUs as far as they are counters, which do not end when
// nothing else is known.
func (w *worker) counted() []reading {
	var all []reading
	for _, uuid := range slices.Sorted(maps.Keys(w.known)) {
		if c := w.known[uuid]; !c.last.mig {
			all = append(all, onlyCounted(c.last))
		}
	}
	return all
}

func onlyCounted(last reading) reading {
	r := blank(last.index, last.uuid, last.name)
	r.busy, r.joules, r.lost, r.mig = last.busy, last.joules, true, last.mig
	return r
}

func (l *library) versions() (driver, cuda string) {
	if l.has("nvmlSystemGetDriverVersion") {
		driver, _ = l.nvml.SystemGetDriverVersion() // empty when it is not told
	}
	if l.has("nvmlSystemGetCudaDriverVersion_v2") {
		if v, ret := l.nvml.SystemGetCudaDriverVersion_v2(); ret == nvml.SUCCESS {
			cuda = fmt.Sprintf("%d.%d", v/1000, v%1000/10)
		}
	}
	return driver, cuda
}
