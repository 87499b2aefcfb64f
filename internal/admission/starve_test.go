package admission

import (
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

// most is what one request of the crowd costs at most.
const most = 100

// crowd is four callers that ask one slot for work of any size.
type crowd struct {
	t     *testing.T
	g     *Gate
	lines map[string][]*caller      // who waits, by caller
	since map[string]map[string]int // what others were served since the first of a line is first
	now   *caller                   // who has the slot
	who   string                    // whose it is
}

func (c *crowd) arrive(rt *rapid.T) {
	name := rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(rt, "caller")
	for range rapid.IntRange(1, 5).Draw(rt, "requests") {
		r := Request{Caller: name, Prompt: rapid.IntRange(1, most).Draw(rt, "prompt")}
		c.lines[name] = append(c.lines[name], ask(c.t.Context(), c.g, r))
		if len(c.lines[name]) == 1 {
			c.since[name] = map[string]int{}
		}
	}
}

// release ends the work of now, which cost anything, and finds whose turn it is.
func (c *crowd) release(rt *rapid.T) {
	served := rapid.IntRange(1, most).Draw(rt, "served")
	c.now.end(Tokens{Prompt: served})
	for _, others := range c.since {
		others[c.who] += served
	}
	for name, l := range c.lines {
		if !l[0].done() {
			continue
		}
		c.now, c.who, c.lines[name], c.since[name] = l[0], name, l[1:], map[string]int{}
		if len(l) == 1 {
			delete(c.lines, name)
			delete(c.since, name)
		}
		return
	}
	if len(c.lines) > 0 {
		rt.Fatal("the slot is free and somebody waits")
	}
	c.now, c.who = call(c.t.Context(), c.g), "nobody"
}

func (c *crowd) check(rt *rapid.T) {
	for name, others := range c.since {
		for other, served := range others {
			if other != name && served > 3*most {
				rt.Fatalf("%s waited while %s was served %d", name, other, served)
			}
		}
	}
}

// Nobody starves: while one request is first in its caller's line, no other
// caller is served more than three requests can cost.
func TestNobodyStarves(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		synctest.Test(t, func(t *testing.T) {
			g := New(Config{MaxQueue: 10000, Hold: time.Hour})
			g.SetCapacity(Capacity{Slots: 1})
			c := &crowd{t: t, g: g, lines: map[string][]*caller{}, since: map[string]map[string]int{}, now: call(t.Context(), g)}
			rt.Repeat(map[string]func(*rapid.T){"arrive": c.arrive, "release": c.release, "release too": c.release, "": c.check})
		})
	})
}
