package dapr

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Jobs that come and go leave a list that is as short as it was, also when
// nobody reads it.
func TestIndexOfKeysThatGo(t *testing.T) {
	for name, read := range map[string]bool{"read": true, "never read": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKept()
				st := k.store()
				st.index.most = 20
				for day := range 4 {
					for i := range 4 * st.index.most {
						key := fmt.Sprintf("todo/%d-%d", day, i)
						if err := errors.Join(st.Create(t.Context(), key, []byte("x"), 0), st.Delete(t.Context(), key, "")); err != nil {
							t.Fatal(err)
						}
					}
					if n := len(k.values); n > 6 { // four segments, one more, and the folder
						t.Fatalf("day %d: the index takes %d keys", day, n)
					}
					<-time.After(24 * time.Hour)
					if !read {
						continue
					}
					for _, reads := range []int{100, 2} { // the first sweeps
						k.reads = 0
						if got, err := st.List(t.Context(), "todo/", "", 10); err != nil || len(got) > 0 || k.reads > reads {
							t.Errorf("day %d: listed %q, %v with %d reads", day, got, err, k.reads)
						}
					}
				}
			})
		})
	}
}

// A process goes back to where keys have gone, though others stay after them.
func TestIndexUsesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept()
		st := k.store()
		st.index.most = 20
		var faults []error
		for i := range 60 {
			faults = append(faults, st.Create(t.Context(), fmt.Sprintf("todo/%02d", i), []byte("x"), 0))
		}
		for i := range 20 {
			faults = append(faults, st.Delete(t.Context(), fmt.Sprintf("todo/%02d", i), ""))
		}
		<-time.After(pruneAfter + time.Minute)
		_, err := st.List(t.Context(), "todo/", "", 100)
		faults = append(faults, err)
		for i := range 20 {
			faults = append(faults, st.Create(t.Context(), fmt.Sprintf("todo/new%02d", i), []byte("x"), 0))
		}
		if _, longer := k.values["i:todo/3"]; longer || errors.Join(faults...) != nil {
			t.Errorf("the list became longer, %v", errors.Join(faults...))
		}
		if got, err := st.List(t.Context(), "todo/", "", 100); err != nil || len(got) != 60 {
			t.Errorf("listed %d keys of 60, %v", len(got), err)
		}
	})
}

// A segment is not closed while the next one may be on its way.
func TestIndexKeepsWhatHasTheMark(t *testing.T) {
	k := newKept()
	x := k.store().index
	var all []segment
	for n := range 2 {
		k.put(segmentKey("in/", n), segmentMore)
		s, err := x.read(t.Context(), "in/", n)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	x.shrink(t.Context(), "in/", all)
	if s, err := x.read(t.Context(), "in/", 1); err != nil || !s.open() {
		t.Errorf("segment 1 is closed, %v", err)
	}
}

// errStopped is what a process gets that has ended.
var errStopped = errors.New("the process has ended")

// actor is a process whose accesses the test lets through one by one.
type actor struct {
	next  chan error // lets one access through, or ends the process
	waits chan bool  // false when it has ended
}

// doing is what a process does; it tells which keys it has added.
type doing func(ctx context.Context, x *index, added func(string))

func act(ctx context.Context, k *kept, do doing, added func(string)) *actor {
	a := &actor{next: make(chan error), waits: make(chan bool)}
	mine := &kept{values: k.values, etags: k.etags, before: func(bool, string) error {
		a.waits <- true
		return <-a.next
	}}
	x := mine.store().index
	x.most = 4
	go func() {
		do(ctx, x, added)
		a.waits <- false
	}()
	<-a.waits
	return a
}

// step lets one access through, or ends the process. It returns false when
// nothing is left to do.
func (a *actor) step(end bool) bool {
	if !end {
		a.next <- nil
		return <-a.waits
	}
	for more := true; more; more = <-a.waits {
		a.next <- errStopped
	}
	return false
}

// play runs processes against one component in an order that the seed decides,
// and ends some of them on the way. After each access, every key that was added
// must be in the list, and what keeps it there must hold.
func play(t *testing.T, k *kept, seed uint64, dos ...doing) {
	t.Helper()
	random := rand.New(rand.NewPCG(seed, 0))
	var actors []*actor
	var keys []string
	for _, do := range dos {
		actors = append(actors, act(t.Context(), k, do, func(key string) { keys = append(keys, key) }))
	}
	for len(actors) > 0 {
		i := random.IntN(len(actors))
		if !actors[i].step(random.IntN(40) == 0) {
			actors = slices.Delete(actors, i, i+1)
		}
		if fault := k.fault(t, keys); fault != "" {
			t.Fatalf("seed %d: %s", seed, fault)
		}
	}
}

// fault says what is wrong with the list of keys.
func (k *kept) fault(t *testing.T, keys []string) string {
	x := (&kept{values: k.values, etags: k.etags}).store().index
	listed, before := "", segment{there: true, more: true}
	for n := range 6 {
		s, err := x.read(t.Context(), "in/", n)
		switch {
		case err != nil:
			return err.Error()
		case s.open() && !(before.open() && before.more):
			return fmt.Sprintf("segment %d is open, and the one before it does not say so", n)
		case s.open():
			listed += strings.Join(s.lines, "\n") + "\n"
		}
		before = s
	}
	for _, key := range keys {
		if !strings.Contains(listed, " "+strings.TrimPrefix(key, "in/")+"\n") {
			return key + " is not in the list:\n" + listed
		}
	}
	return ""
}

// adding adds keys one after the other, of a process that has just swept, so
// that it does not see what can go.
func adding(names ...string) doing {
	return func(ctx context.Context, x *index, added func(string)) {
		x.tail("in/").swept.Store(time.Now().Unix())
		for _, name := range names {
			if x.add(ctx, "in/"+name) == nil {
				added("in/" + name)
			}
		}
	}
}

func sweeping(ctx context.Context, x *index, _ func(string)) {
	for range 2 {
		_, _ = x.names(ctx, "in/", new(tail)) // the process may have ended
	}
}

// linesOf are n keys that were added at a time.
func linesOf(at int64, n int, who string) (lines []string) {
	for i := range n {
		lines = append(lines, fmt.Sprintf("%d %s%d", at, who, i))
	}
	return lines
}

// No key is lost, in whatever order processes add keys and sweep, and wherever
// they end.
func TestIndexOfManyProcesses(t *testing.T) {
	young := func(n int, who string) []string { return linesOf(1<<40, n, who) }
	aged := func(n int, who string) []string { return linesOf(1, n, who) }
	more, closed := []string{segmentMore}, []string{segmentClosed}
	for name, segments := range map[string][][]string{
		"last can go":          {slices.Concat(more, young(4, "a")), aged(2, "b")},
		"last is closed":       {slices.Concat(more, young(4, "a")), closed},
		"last was not opened":  {slices.Concat(more, young(4, "a"))},
		"last is full":         {slices.Concat(more, young(4, "a")), aged(4, "b")},
		"full ones can go":     {slices.Concat(more, young(4, "a")), slices.Concat(more, aged(4, "b")), aged(4, "c")},
		"a full one before":    {slices.Concat(more, young(4, "a")), slices.Concat(more, aged(4, "b")), closed},
		"with a mark too many": {slices.Concat(more, young(4, "a")), more, closed, closed},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				for seed := range uint64(400) {
					k := newKept()
					for n, lines := range segments {
						k.put(segmentKey("in/", n), strings.Join(lines, "\n"))
					}
					play(t, k, seed, adding("one", "two", "three"), adding("other"), sweeping, sweeping)
				}
			})
		})
	}
}
