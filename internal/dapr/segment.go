package dapr

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"infer/internal/store"
)

const (
	segmentMore   = "+" // the first line of a segment: the next may be open
	segmentClosed = "-" // all of a segment that nobody may add to
)

// segment is a part of the list of a folder's keys. It is missing, open or
// closed, and a List ends at the first that is not open. So a segment may be
// open only while the one before it is, or keys would be lost. Segment 0 stays
// open; the others are opened and closed in three steps, of which every write is
// a compare-and-swap:
//
//	open n:  read n, missing or closed; write n-1 with the mark that n may be open; write n
//	close n: read n-1, then n, empty and without the mark; write n; write n-1 without the mark
//
// While n is open, n-1 has the mark. Where the opener reads n before the closer
// writes it, one of them fails to write n and stops. Where it reads n after that,
// it writes the mark after the closer has read n-1: the closer's last write
// fails, or comes before the mark. And a segment with the mark is not closed, so
// that n-1 is open while n is.
//
// A process that ends between two writes leaves a mark that nobody needs or a
// closed segment with the mark before it, which the next sweep puts right.
// No segment is deleted: a component may count its etags from the start when it
// is made again, and Redis takes an etag for what has gone as leave to make it.
type segment struct {
	record
	there  bool // in the component
	more   bool
	closed bool
	lines  []string
}

func segmentKey(folder string, n int) string { return "i:" + folder + strconv.Itoa(n) }

// open says whether keys may be in s.
func (s segment) open() bool { return s.there && !s.closed }

func (x *index) full(s segment) bool { return len(s.lines) >= x.most }

// roomy says whether it is worth going back to s.
func (x *index) roomy(s segment) bool { return len(s.lines) < x.most*3/4 }

func (s segment) bytes() []byte {
	switch {
	case s.closed:
		return []byte(segmentClosed)
	case s.more:
		return []byte(strings.Join(append([]string{segmentMore}, s.lines...), "\n"))
	}
	return []byte(strings.Join(s.lines, "\n"))
}

// read returns a segment, which may not be there.
func (x *index) read(ctx context.Context, folder string, n int) (s segment, err error) {
	if s.record, s.there, err = x.st.load(ctx, segmentKey(folder, n)); err != nil || !s.there {
		return s, err
	}
	for line := range strings.SplitSeq(string(s.value), "\n") {
		switch line {
		case "":
		case segmentMore:
			s.more = true
		case segmentClosed:
			s.closed = true
		default:
			s.lines = append(s.lines, line)
		}
	}
	return s, nil
}

// write puts s where it was read.
func (x *index) write(ctx context.Context, folder string, n int, s segment) error {
	if !s.there {
		return x.st.create(ctx, segmentKey(folder, n), s.bytes(), 0)
	}
	return x.st.replace(ctx, segmentKey(folder, n), s.record, newRecord(s.bytes(), 0), 0)
}

// extend opens segment n, which was read as s, with a name. It returns false
// when the name belongs elsewhere.
func (x *index) extend(ctx context.Context, folder string, t *tail, n int, s segment, name string) (done bool, err error) {
	if t.due() { // there may be room before
		_, err := x.names(ctx, folder, t)
		return false, err
	}
	last, err := x.read(ctx, folder, n-1)
	if err != nil {
		return false, err
	}
	if !x.full(last) { // it was swept or closed since, or the component was emptied
		t.number.CompareAndSwap(int64(n), int64(n-1))
		return false, nil
	}
	last.more = true
	if err := x.write(ctx, folder, n-1, last); err != nil {
		return false, err
	}
	s.closed, s.more, s.lines = false, false, []string{newLine(name)}
	err = x.write(ctx, folder, n, s)
	return err == nil, err
}

// shrink closes the empty segments at the end of all, which are the open ones
// and the one after them. It may fail: the next sweep tries again.
func (x *index) shrink(ctx context.Context, folder string, all []segment) {
	for n := len(all) - 1; n > 0; n-- {
		s, last := all[n], &all[n-1]
		switch {
		case !s.open() && !last.more:
			continue
		case s.open() && (s.more || len(s.lines) > 0):
			return
		}
		s.closed = true
		if x.write(ctx, folder, n, s) != nil {
			return
		}
		if !last.more {
			continue
		}
		last.more = false
		if x.write(ctx, folder, n-1, *last) != nil {
			return
		}
		var err error
		if *last, err = x.read(ctx, folder, n-1); err != nil || !last.open() {
			return
		}
	}
}

// prune takes keys out of a segment that are not there, and returns the segment
// as it then is. It may fail: the next sweep tries again.
func (x *index) prune(ctx context.Context, folder string, n int, s segment) segment {
	old := time.Now().Add(-pruneAfter).Unix()
	var aged []string
	for _, line := range s.lines {
		at, name, err := parseLine(line)
		if err == nil && at < old && !strings.HasSuffix(name, "/") {
			aged = append(aged, folder+name)
		}
	}
	if n == 0 && len(aged) <= x.most/2 { // it stays anyway
		return s
	}
	gone := map[string]bool{}
	for part := range slices.Chunk(aged, bulkKeys) {
		there, err := x.there(ctx, part)
		if err != nil {
			return s
		}
		for _, key := range part {
			if !slices.Contains(there, key) {
				gone[key] = true
			}
		}
	}
	less := s
	less.lines = slices.DeleteFunc(slices.Clone(s.lines), func(line string) bool {
		_, name, _ := parseLine(line)
		return gone[folder+name]
	})
	if len(gone) == 0 || !x.roomy(less) || x.write(ctx, folder, n, less) != nil {
		return s
	}
	if now, err := x.read(ctx, folder, n); err == nil && now.open() {
		return now
	}
	return s
}

// newLine says when name was added, which is now: an older line could be pruned
// before its key is there.
func newLine(name string) string { return strconv.FormatInt(time.Now().Unix(), 10) + " " + name }

// parseLine returns when a name was added.
func parseLine(line string) (at int64, name string, err error) {
	added, name, ok := strings.Cut(line, " ")
	if at, err = strconv.ParseInt(added, 10, 64); !ok || err != nil {
		return 0, "", fmt.Errorf("%w: %w", store.ErrCorrupt, errSegment)
	}
	return at, name, nil
}
