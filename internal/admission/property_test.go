package admission

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// actor is one request of the model: where it is, by the rules of the Gate.
type actor struct {
	*caller
	cancel context.CancelFunc
}

// model drives a Gate at random and holds it against a list.
type model struct {
	g        *Gate
	capacity int
	queue    []*actor // in the order of arrival
	running  []*actor
}

const maxQueue = 5

func (m *model) arrive(t *rapid.T) {
	ctx, cancel := context.WithCancel(context.Background())
	a := &actor{call(ctx, m.g), cancel}
	switch {
	case m.capacity > len(m.running) && len(m.queue) == 0:
		m.running = append(m.running, a)
	case len(m.queue) < maxQueue:
		m.queue = append(m.queue, a)
	default:
		cancel()
		if a.err != ErrQueueFull {
			t.Fatalf("a request beyond the queue got %v", a.err)
		}
	}
}

func (m *model) pick(t *rapid.T, from *[]*actor) *actor {
	if len(*from) == 0 {
		return nil
	}
	i := rapid.IntRange(0, len(*from)-1).Draw(t, "who")
	a := (*from)[i]
	*from = slices.Delete(*from, i, i+1)
	return a
}

func (m *model) leave(t *rapid.T) {
	if a := m.pick(t, &m.queue); a != nil {
		a.cancel()
	}
}

func (m *model) release(t *rapid.T) {
	if a := m.pick(t, &m.running); a != nil {
		a.release(Tokens{})
		a.cancel()
	}
}

// race frees a slot and cancels whoever is first in line at the same moment;
// either may win, the slot must not be lost.
func (m *model) race(t *rapid.T) {
	if len(m.running) == 0 || len(m.queue) == 0 {
		return
	}
	a, first := m.pick(t, &m.running), m.queue[0]
	m.queue = m.queue[1:]
	if rapid.Bool().Draw(t, "cancel first") {
		first.cancel()
		a.release(Tokens{})
	} else {
		a.release(Tokens{})
		first.cancel()
	}
	a.cancel()
	synctest.Wait()
	if first.err == nil {
		first.release(Tokens{})
	}
}

func (m *model) resize(t *rapid.T) {
	m.capacity = rapid.IntRange(0, 4).Draw(t, "slots")
	m.g.SetCapacity(m.capacity)
}

// check moves the model's queue and compares.
func (m *model) check(t *rapid.T) {
	synctest.Wait()
	for len(m.running) < m.capacity && len(m.queue) > 0 {
		m.running = append(m.running, m.queue[0])
		m.queue = m.queue[1:]
	}
	for i, a := range m.running {
		if !a.done() || a.err != nil {
			t.Fatalf("running request %d: done %v, %v", i, a.done(), a.err)
		}
	}
	for i, a := range m.queue {
		if a.done() {
			t.Fatalf("request %d of the queue overtook or was refused: %v", i, a.err)
		}
	}
	st := m.g.Stats()
	if st.Running != len(m.running) || st.Waiting+st.Held != len(m.queue) || st.Capacity != m.capacity {
		t.Fatalf("Stats() = %+v, want %d running, %d waiting, capacity %d", st, len(m.running), len(m.queue), m.capacity)
	}
	if !(st.Saturation >= 0 && st.Saturation < 100) {
		t.Fatalf("saturation is %v", st.Saturation)
	}
}

// Never more than capacity run, the order is that of arrival, and no slot is
// lost, whoever comes, leaves and ends in whatever order.
func TestGateProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(*testing.T) {
			m := &model{g: New(Config{MaxQueue: maxQueue, Hold: time.Hour})}
			rt.Repeat(map[string]func(*rapid.T){
				"arrive": m.arrive, "leave": m.leave, "release": m.release, "race": m.race, "resize": m.resize, "": m.check,
			})
			for _, a := range slices.Concat(m.queue, m.running) {
				a.cancel()
			}
			synctest.Wait()
		})
	})
}

func BenchmarkAcquire(b *testing.B) {
	g := New(Config{MaxQueue: 1})
	g.SetCapacity(1)
	for b.Loop() {
		release, _, err := g.Acquire(b.Context(), Request{})
		if err != nil {
			b.Fatal(err)
		}
		release(Tokens{})
	}
}
