// Package storetest is the suite that every implementation of store.Store
// passes.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"infer/internal/store"
)

// Run holds the store that open returns to the contract. open is called for
// every test with a prefix that no other test has, and may return the same
// store again; the suite closes nothing.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, store.Store)
	}{
		{"create", create}, {"swap", swap}, {"delete", remove}, {"list", list}, {"ttl", ttl},
		{"values", values}, {"keys", keys}, {"one creator", oneCreator}, {"counter", counter},
		{"value is the caller's", owned},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}

// key makes a key that only this test uses, so that stores may be shared.
func key(t *testing.T, name string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, t.Name())
	return "suite/" + clean + "/" + name
}

func want(t *testing.T, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) || (target == nil && err != nil) {
		t.Errorf("%s: %v, want %v", what, err, target)
	}
}

func get(t *testing.T, s store.Store, k string) store.Item {
	t.Helper()
	it, err := s.Get(t.Context(), k)
	if err != nil {
		t.Fatalf("get %s: %v", k, err)
	}
	return it
}

func create(t *testing.T, s store.Store) {
	k := key(t, "a")
	_, err := s.Get(t.Context(), k)
	want(t, "get before", err, store.ErrNotFound)
	want(t, "create", s.Create(t.Context(), k, []byte("one"), 0), nil)
	want(t, "create again", s.Create(t.Context(), k, []byte("two"), 0), store.ErrConflict)
	if got := get(t, s, k); string(got.Value) != "one" || got.Rev == "" {
		t.Errorf("got %q at revision %q", got.Value, got.Rev)
	}
}

func swap(t *testing.T, s store.Store) {
	k := key(t, "a")
	want(t, "swap of nothing", s.Swap(t.Context(), k, "1", []byte("x"), 0), store.ErrConflict)
	want(t, "create", s.Create(t.Context(), k, []byte("one"), 0), nil)
	first := get(t, s, k)
	want(t, "swap", s.Swap(t.Context(), k, first.Rev, []byte("two"), 0), nil)
	want(t, "swap of the old", s.Swap(t.Context(), k, first.Rev, []byte("three"), 0), store.ErrConflict)
	second := get(t, s, k)
	if string(second.Value) != "two" || second.Rev == first.Rev {
		t.Errorf("got %q at revision %q, first %q", second.Value, second.Rev, first.Rev)
	}
	want(t, "swap to the same value", s.Swap(t.Context(), k, second.Rev, []byte("two"), 0), nil)
	if third := get(t, s, k); third.Rev == second.Rev {
		t.Error("a write of the same value did not change the revision")
	}
	// A key that was deleted and made again is another one.
	want(t, "delete", s.Delete(t.Context(), k, ""), nil)
	want(t, "create", s.Create(t.Context(), k, []byte("two"), 0), nil)
	want(t, "swap across a delete", s.Swap(t.Context(), k, second.Rev, []byte("x"), 0), store.ErrConflict)
}

func remove(t *testing.T, s store.Store) {
	k := key(t, "a")
	want(t, "delete of nothing", s.Delete(t.Context(), k, ""), nil)
	want(t, "delete of nothing at a revision", s.Delete(t.Context(), k, "1"), store.ErrConflict)
	want(t, "create", s.Create(t.Context(), k, []byte("one"), 0), nil)
	old := get(t, s, k)
	want(t, "swap", s.Swap(t.Context(), k, old.Rev, []byte("two"), 0), nil)
	want(t, "delete of the old", s.Delete(t.Context(), k, old.Rev), store.ErrConflict)
	want(t, "delete", s.Delete(t.Context(), k, get(t, s, k).Rev), nil)
	_, err := s.Get(t.Context(), k)
	want(t, "get after", err, store.ErrNotFound)
}

func list(t *testing.T, s store.Store) {
	var all []string
	for i := range 25 {
		k := key(t, fmt.Sprintf("in/%02d", i))
		all = append(all, k)
		want(t, "create", s.Create(t.Context(), k, []byte("x"), 0), nil)
	}
	want(t, "create beside", s.Create(t.Context(), key(t, "inside"), []byte("x"), 0), nil)
	want(t, "delete", s.Delete(t.Context(), all[7], ""), nil)
	all = slices.Delete(all, 7, 8)
	var got []string
	for after := ""; ; after = got[len(got)-1] {
		page, err := s.List(t.Context(), key(t, "in/"), after, 10)
		if err != nil || len(page) > 10 {
			t.Fatalf("list after %q: %d keys, %v", after, len(page), err)
		}
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
	}
	if !slices.Equal(got, all) {
		t.Errorf("listed %q, want %q", got, all)
	}
}

// ttl uses real time: a store may be a server.
func ttl(t *testing.T, s store.Store) {
	short, long := key(t, "ttl/short"), key(t, "ttl/long")
	want(t, "create", s.Create(t.Context(), short, []byte("x"), time.Second), nil)
	want(t, "create", s.Create(t.Context(), long, []byte("x"), time.Second), nil)
	want(t, "swap", s.Swap(t.Context(), long, get(t, s, long).Rev, []byte("y"), time.Hour), nil)
	// A component may keep a value a little longer than was asked.
	kept, later := key(t, "ttl/zz-kept"), key(t, "later")
	want(t, "create", s.Create(t.Context(), later, []byte("x"), 4*time.Second), nil)
	want(t, "create", s.Create(t.Context(), kept, []byte("x"), time.Second), nil)
	want(t, "swap without an end", s.Swap(t.Context(), kept, get(t, s, kept).Rev, []byte("y"), 0), nil)
	until(t, "the value to expire", func() bool {
		_, err := s.Get(t.Context(), short)
		return errors.Is(err, store.ErrNotFound)
	})
	keys, err := s.List(t.Context(), key(t, "ttl/"), "", 10)
	if err != nil || !slices.Equal(keys, []string{long, kept}) {
		t.Errorf("listed %q, %v; want what was given longer", keys, err)
	}
	want(t, "create after the expiry", s.Create(t.Context(), short, []byte("z"), 0), nil)
	if got := get(t, s, long); string(got.Value) != "y" {
		t.Errorf("got %q", got.Value)
	}
	until(t, "the later value to expire", func() bool {
		_, err := s.Get(t.Context(), later)
		return errors.Is(err, store.ErrNotFound)
	})
	if got := get(t, s, kept); string(got.Value) != "y" {
		t.Errorf("got %q of what was given no end", got.Value)
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited too long for %s", what)
		}
	}
}

func values(t *testing.T, s store.Store) {
	binary := make([]byte, 1024)
	for i := range binary {
		binary[i] = byte(i)
	}
	for name, v := range map[string][]byte{"empty": {}, "binary": binary, "large": bytes.Repeat([]byte("0123456789abcdef"), store.MaxValueBytes/16)} {
		want(t, name, s.Create(t.Context(), key(t, name), v, 0), nil)
		if got := get(t, s, key(t, name)); !bytes.Equal(got.Value, v) {
			t.Errorf("%s: %d bytes came back of %d, or others", name, len(got.Value), len(v))
		}
	}
	over := make([]byte, store.MaxValueBytes+1)
	want(t, "too large", s.Create(t.Context(), key(t, "over"), over, 0), store.ErrTooLarge)
	want(t, "swap to too large", s.Swap(t.Context(), key(t, "empty"), get(t, s, key(t, "empty")).Rev, over, 0), store.ErrTooLarge)
}

func keys(t *testing.T, s store.Store) {
	for _, k := range []string{"", "a||b", "a b", "é", strings.Repeat("k", 201), "a\x00b"} {
		want(t, fmt.Sprintf("create %q", k), s.Create(t.Context(), k, nil, 0), store.ErrBadKey)
		_, err := s.Get(t.Context(), k)
		want(t, fmt.Sprintf("get %q", k), err, store.ErrBadKey)
	}
	for _, k := range []string{"A/b-c_d.e:f", strings.Repeat("k", 200-len(key(t, "")))} {
		want(t, k, s.Create(t.Context(), key(t, k), []byte("x"), 0), nil)
	}
}

// oneCreator: of many that create one key at once, one succeeds.
func oneCreator(t *testing.T, s store.Store) {
	var wg sync.WaitGroup
	var won atomic.Int32
	for i := range 16 {
		wg.Go(func() {
			switch err := s.Create(t.Context(), key(t, "a"), fmt.Append(nil, i), 0); {
			case err == nil:
				won.Add(1)
			case !errors.Is(err, store.ErrConflict):
				t.Errorf("create: %v", err)
			}
		})
	}
	wg.Wait()
	if n := won.Load(); n != 1 {
		t.Errorf("%d creators succeeded, want 1", n)
	}
}

// counter: no increment by compare-and-swap is lost.
func counter(t *testing.T, s store.Store) {
	k := key(t, "n")
	want(t, "create", s.Create(t.Context(), k, []byte("0"), 0), nil)
	const writers, each = 8, 10
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for done := 0; done < each; {
				it, err := s.Get(t.Context(), k)
				if err != nil {
					t.Errorf("get: %v", err)
					return
				}
				var n int
				_, _ = fmt.Sscan(string(it.Value), &n) // 0 would show below
				switch err := s.Swap(t.Context(), k, it.Rev, fmt.Append(nil, n+1), 0); {
				case err == nil:
					done++
				case !errors.Is(err, store.ErrConflict):
					t.Errorf("swap: %v", err)
					return
				}
			}
		})
	}
	wg.Wait()
	if got := string(get(t, s, k).Value); got != fmt.Sprint(writers*each) {
		t.Errorf("counted to %s, want %d", got, writers*each)
	}
}

func owned(t *testing.T, s store.Store) {
	k, v := key(t, "a"), []byte("one")
	want(t, "create", s.Create(t.Context(), k, v, 0), nil)
	v[0] = 'X'
	it := get(t, s, k)
	it.Value[1] = 'X'
	if got := get(t, s, k); string(got.Value) != "one" {
		t.Errorf("the store shares its memory: %q", got.Value)
	}
}
