package dapr

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"infer/internal/store"
)

const (
	segmentKeys = 500              // of one segment of the index
	bulkKeys    = 50               // that are looked at with one call
	maxDirs     = 4096             // whose tail is remembered
	pruneAfter  = 10 * time.Minute // a key that is listed and not there for so long never comes
	addTries    = 40               // that other processes may spoil
)

// index lists keys, which no component does. Every folder of keys (all that
// stands before a key's last slash) has segments i:FOLDER0, i:FOLDER1 and so on:
// a line for each key, with the time when it was added. Keys are added to any
// open segment that has room. A folder is itself an entry of the folder above
// it. Keys that have gone stay listed until a sweep finds them gone.
type index struct {
	st   *Store
	most int // keys of one segment

	mu    sync.Mutex
	tails map[string]*tail
}

// tail is what this process knows of a folder. Its lock lets the writers of one
// process wait instead of meeting.
type tail struct {
	mu     sync.Mutex
	number atomic.Int64 // of the segment to add to: a guess, which is tried
	swept  atomic.Int64 // Unix seconds of the last sweep by this process
}

// due says whether the folder has not been swept for long.
func (t *tail) due() bool { return time.Now().Unix()-t.swept.Load() >= int64(pruneAfter/time.Second) }

func newIndex(st *Store) *index { return &index{st: st, most: segmentKeys, tails: map[string]*tail{}} }

func (x *index) tail(folder string) *tail {
	x.mu.Lock()
	defer x.mu.Unlock()
	t := x.tails[folder]
	if t == nil {
		if len(x.tails) >= maxDirs { // found again by looking
			clear(x.tails)
		}
		t = &tail{}
		x.tails[folder] = t
	}
	return t
}

// split returns a key's folder, with its slash, and its name in it.
func split(key string) (folder, name string) {
	cut := strings.LastIndexByte(strings.TrimSuffix(key, "/"), '/') + 1
	return key[:cut], key[cut:]
}

// add lists a key, or a folder, whose name ends with a slash.
func (x *index) add(ctx context.Context, key string) error {
	folder, name := split(key)
	t := x.tail(folder)
	t.mu.Lock()
	defer t.mu.Unlock()
	for spoilt := 0; spoilt < addTries; {
		done, err := x.append(ctx, folder, t, name)
		switch {
		case err == nil && done:
			return nil
		case err == nil: // it belongs into another segment
			continue
		case !errors.Is(err, store.ErrConflict):
			return fmt.Errorf("list a key: %w", err)
		}
		spoilt++ // another process was first
		select {
		case <-time.After(rand.N(20 * time.Millisecond)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return fmt.Errorf("list a key: %w", errBusy)
}

// append tries to put name into the segment that t points to. It returns false
// when t has moved.
func (x *index) append(ctx context.Context, folder string, t *tail, name string) (done bool, err error) {
	n := int(t.number.Load())
	s, err := x.read(ctx, folder, n)
	if err != nil {
		return false, err
	}
	if n > 0 && !s.open() {
		return x.extend(ctx, folder, t, n, s, name)
	}
	if !s.there && folder != "" {
		if err := x.add(ctx, folder); err != nil {
			return false, err
		}
	}
	i := slices.IndexFunc(s.lines, func(l string) bool { _, other, _ := strings.Cut(l, " "); return other == name })
	switch {
	case i >= 0 && strings.HasSuffix(name, "/"):
		return true, nil
	case i >= 0: // made again: it is young again
		s.lines[i] = newLine(name)
	case x.full(s):
		t.number.CompareAndSwap(int64(n), int64(n+1))
		return false, nil
	default:
		s.lines = append(s.lines, newLine(name))
	}
	err = x.write(ctx, folder, n, s)
	return err == nil, err
}

// list returns the keys below prefix in their order.
func (x *index) list(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	var found []string
	names, err := x.names(ctx, prefix, x.tail(prefix))
	if err != nil {
		return nil, err
	}
	for len(names) > 0 && len(found) < limit {
		if strings.HasSuffix(names[0], "/") {
			// All of a folder may come before after.
			if folder := prefix + names[0]; folder >= after || strings.HasPrefix(after, folder) {
				more, err := x.list(ctx, folder, after, limit-len(found))
				if err != nil {
					return nil, err
				}
				found = append(found, more...)
			}
			names = names[1:]
			continue
		}
		end := slices.IndexFunc(names, func(n string) bool { return strings.HasSuffix(n, "/") })
		if end < 0 {
			end = len(names)
		}
		var keys []string
		for _, n := range names[:min(end, bulkKeys)] {
			if key := prefix + n; key > after {
				keys = append(keys, key)
			}
		}
		names = names[min(end, bulkKeys):]
		there, err := x.there(ctx, keys)
		if err != nil {
			return nil, err
		}
		found = append(found, there[:min(len(there), limit-len(found))]...)
	}
	return found, nil
}

// names are the entries of a folder, sorted, each once. Now and then it sweeps
// the folder on the way: what is long gone is taken out. The keys that come next
// go where there is room, so that a list is no longer than it was once needed.
func (x *index) names(ctx context.Context, folder string, t *tail) ([]string, error) {
	sweep := t.due()
	if sweep {
		t.swept.Store(time.Now().Unix())
	}
	var names []string
	var all []segment
	room := int64(-1)
	for n := 0; n == 0 || all[n-1].open(); n++ {
		s, err := x.read(ctx, folder, n)
		if err != nil {
			return nil, err
		}
		if s.open() {
			for _, line := range s.lines {
				_, name, err := parseLine(line)
				if err != nil {
					return nil, err
				}
				names = append(names, name)
			}
			if sweep {
				s = x.prune(ctx, folder, n, s)
			}
			if room < 0 && x.roomy(s) {
				room = int64(n)
			}
		}
		all = append(all, s)
	}
	if sweep {
		x.shrink(ctx, folder, all)
	}
	if n := t.number.Load(); room >= 0 && room < n {
		t.number.CompareAndSwap(n, room)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// there returns those of keys that have a value.
func (x *index) there(ctx context.Context, keys []string) ([]string, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	items, err := x.st.s.client.GetBulkState(ctx, x.st.component, keys, nil, 16)
	if status.Code(err) == codes.ResourceExhausted && len(keys) > 1 { // large values
		first, err := x.there(ctx, keys[:len(keys)/2])
		if err != nil {
			return nil, err
		}
		second, err := x.there(ctx, keys[len(keys)/2:])
		return append(first, second...), err
	}
	if err != nil {
		return nil, x.st.fault("list", err)
	}
	have := map[string]bool{}
	for _, item := range items {
		if item.Error != "" {
			return nil, fmt.Errorf("list in the state component %s: %s", x.st.component, item.Error)
		}
		if len(item.Value) == 0 {
			continue
		}
		r, err := parseRecord(item.Value, item.Etag)
		if err != nil {
			return nil, err
		}
		have[item.Key] = !r.over()
	}
	return slices.DeleteFunc(slices.Clone(keys), func(k string) bool { return !have[k] }), nil
}
