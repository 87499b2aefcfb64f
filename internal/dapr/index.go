package dapr

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
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
// a line for each key, with the time when it was added. The last segment is
// appended to by compare-and-swap. A folder is itself an entry of the folder
// above it. Keys that have gone stay listed until a List finds them gone.
type index struct {
	st *Store

	mu    sync.Mutex
	tails map[string]*tail
}

// tail is the last segment of a folder, as far as this process knows. Its lock
// lets the writers of one process wait instead of meeting.
type tail struct {
	mu     sync.Mutex
	number int
}

func newIndex(st *Store) *index { return &index{st: st, tails: map[string]*tail{}} }

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
	line := strconv.FormatInt(time.Now().Unix(), 10) + " " + name
	for spoilt := 0; spoilt < addTries; {
		done, err := x.append(ctx, folder, t, line, name)
		switch {
		case err == nil && done:
			return nil
		case err == nil: // another segment is the last
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

// append tries to put line into the segment that t believes to be the last. It
// moves t on when that is full.
func (x *index) append(ctx context.Context, folder string, t *tail, line, name string) (done bool, err error) {
	key := segment(folder, t.number)
	was, there, err := x.st.load(ctx, key)
	if err != nil {
		return false, err
	}
	if !there {
		if t.number == 0 && folder != "" {
			if err := x.add(ctx, folder); err != nil {
				return false, err
			}
		}
		err = x.st.create(ctx, key, []byte(line), 0)
		return err == nil, err
	}
	lines := strings.Split(string(was.value), "\n")
	if i := slices.IndexFunc(lines, func(l string) bool { _, n, _ := strings.Cut(l, " "); return n == name }); i >= 0 && strings.HasSuffix(name, "/") {
		return true, nil
	} else if i >= 0 { // made again: it is young again
		lines[i] = line
	} else if len(lines) >= segmentKeys {
		t.number++
		return false, nil
	} else {
		lines = append(lines, line)
	}
	err = x.st.replace(ctx, key, was, newRecord([]byte(strings.Join(lines, "\n")), 0), 0)
	return err == nil, err
}

func segment(folder string, n int) string { return "i:" + folder + strconv.Itoa(n) }

// list returns the keys below prefix in their order.
func (x *index) list(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	var found []string
	names, err := x.names(ctx, prefix)
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

// names are the entries of a folder, sorted, each once. Those that are long
// gone are taken out on the way.
func (x *index) names(ctx context.Context, folder string) ([]string, error) {
	var names []string
	for n := 0; ; n++ {
		r, there, err := x.st.load(ctx, segment(folder, n))
		if err != nil {
			return nil, err
		}
		if !there {
			break
		}
		old := time.Now().Add(-pruneAfter).Unix()
		var aged []string
		for line := range strings.SplitSeq(string(r.value), "\n") {
			added, name, ok := strings.Cut(line, " ")
			at, err := strconv.ParseInt(added, 10, 64)
			if line == "" {
				continue
			}
			if !ok || err != nil {
				return nil, fmt.Errorf("%w: %w", store.ErrCorrupt, errSegment)
			}
			names = append(names, name)
			if at < old && !strings.HasSuffix(name, "/") {
				aged = append(aged, folder+name)
			}
		}
		if len(aged) > segmentKeys/2 {
			x.prune(ctx, folder, n, r, aged)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// prune takes keys out of a segment that are not there. It may fail: the next
// List tries again.
func (x *index) prune(ctx context.Context, folder string, n int, r record, aged []string) {
	gone := map[string]bool{}
	for part := range slices.Chunk(aged, bulkKeys) {
		there, err := x.there(ctx, part)
		if err != nil {
			return
		}
		for _, key := range part {
			gone[key] = !slices.Contains(there, key)
		}
	}
	lines := slices.DeleteFunc(strings.Split(string(r.value), "\n"), func(l string) bool {
		_, name, _ := strings.Cut(l, " ")
		return gone[folder+name]
	})
	if len(lines) < segmentKeys*3/4 {
		_ = x.st.replace(ctx, segment(folder, n), r, newRecord([]byte(strings.Join(lines, "\n")), 0), 0)
	}
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
