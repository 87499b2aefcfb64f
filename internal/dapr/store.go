package dapr

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	sdk "github.com/dapr/go-sdk/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"infer/internal/store"
)

// writeTimeout bounds one write, whose outcome is then read.
const writeTimeout = 10 * time.Second

// Store keeps values in a state component of the sidecar.
//
// Components differ where it matters, so that little is asked of them. A value
// begins with a line that says who wrote it and when it ends: the writer tells
// whether a write whose answer was lost or unclear took place, and keeps a key
// that was deleted and made again from looking the same; the end holds for
// components without a TTL. Every write names first-write, because Redis
// ignores an etag otherwise. No component lists keys: see index.
type Store struct {
	s         *Sidecar
	component string
	index     *index
}

// Store returns the values of one component. Peers of the same app id share
// them.
func (s *Sidecar) Store(component string) *Store {
	st := &Store{s: s, component: component}
	st.index = newIndex(st)
	return st
}

// record is a value as it is kept.
type record struct {
	writer string
	ends   int64 // Unix seconds; 0 for never
	value  []byte
	etag   string
}

func (r record) bytes() []byte {
	return append(fmt.Appendf(nil, "infer1 %s %d\n", r.writer, r.ends), r.value...)
}

func (r record) rev() string { return r.etag + "/" + r.writer }

func (r record) over() bool { return r.ends > 0 && time.Now().Unix() >= r.ends }

func newRecord(value []byte, ttl time.Duration) record {
	r := record{writer: rand.Text(), value: value}
	if ttl > 0 {
		// Rounded up: a value lives at least as long as was asked.
		r.ends = time.Now().Add(ttl + time.Second - 1).Unix()
	}
	return r
}

func parseRecord(text []byte, etag string) (record, error) {
	line, value, ok := bytes.Cut(text, []byte{'\n'})
	fields := strings.Fields(string(line))
	if !ok || len(fields) != 3 || fields[0] != "infer1" {
		return record{}, fmt.Errorf("%w: a value was not written by this program; give it a component, or a prefix of keys, of its own", store.ErrCorrupt)
	}
	ends, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil {
		return record{}, fmt.Errorf("%w: a value's end cannot be read", store.ErrCorrupt)
	}
	return record{writer: fields[1], ends: ends, value: value, etag: etag}, nil
}

// load returns what is kept under key; ok is false when there is nothing, or
// nothing that still counts.
func (st *Store) load(ctx context.Context, key string) (r record, ok bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	item, err := st.s.client.GetStateWithConsistency(ctx, st.component, key, nil, sdk.StateConsistencyStrong)
	if err != nil {
		return record{}, false, st.fault("read", err)
	}
	if len(item.Value) == 0 {
		return record{}, false, nil
	}
	if r, err = parseRecord(item.Value, item.Etag); err != nil {
		return record{}, false, err
	}
	return r, !r.over(), nil
}

// save writes r where the etag is what it was; an empty one means no value.
func (st *Store) save(ctx context.Context, key string, r record, ttl time.Duration, etag string) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	// Without an end, Redis would keep the one that the value had before.
	meta := map[string]string{"ttlInSeconds": "-1"}
	if ttl > 0 {
		// A second more than the value says, so that the value decides.
		meta = map[string]string{"ttlInSeconds": strconv.FormatInt(int64(ttl/time.Second)+2, 10)}
	}
	return st.s.client.SaveStateWithETag(ctx, st.component, key, r.bytes(), etag, meta,
		sdk.WithConcurrency(sdk.StateConcurrencyFirstWrite), sdk.WithConsistency(sdk.StateConsistencyStrong))
}

// Create implements store.Store.
func (st *Store) Create(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := store.Check(key, value); err != nil {
		return err
	}
	// Listed before it is there: a key that is listed and missing is looked
	// over, one that is there and not listed would be lost.
	if err := st.index.add(ctx, key); err != nil {
		return err
	}
	return st.create(ctx, key, value, ttl)
}

func (st *Store) create(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	r := newRecord(value, ttl)
	err := st.save(ctx, key, r, ttl, "")
	if err == nil {
		return nil
	}
	// A conflict is Aborted on most components and Internal on Redis; what is
	// not a conflict may have been written all the same.
	was, there, readErr := st.load(ctx, key)
	switch {
	case readErr != nil:
		return st.fault("create", err)
	case there && was.writer == r.writer:
		return nil
	case there:
		return store.ErrConflict
	case was.writer != "": // over, and the component still has it
		return st.replace(ctx, key, was, r, ttl)
	}
	return st.fault("create", err)
}

// replace writes r over what was there.
func (st *Store) replace(ctx context.Context, key string, was, r record, ttl time.Duration) error {
	err := st.save(ctx, key, r, ttl, was.etag)
	if err == nil {
		return nil
	}
	now, _, readErr := st.load(ctx, key)
	switch {
	case readErr != nil:
		return st.fault("write", err)
	case now.writer == r.writer:
		return nil
	case now.writer != was.writer || status.Code(err) == codes.Aborted:
		return store.ErrConflict
	}
	return st.fault("write", err)
}

// Get implements store.Store.
func (st *Store) Get(ctx context.Context, key string) (store.Item, error) {
	if err := store.CheckKey(key); err != nil {
		return store.Item{}, err
	}
	r, ok, err := st.load(ctx, key)
	if err != nil {
		return store.Item{}, err
	}
	if !ok {
		return store.Item{}, store.ErrNotFound
	}
	return store.Item{Value: r.value, Rev: r.rev()}, nil
}

// Swap implements store.Store.
func (st *Store) Swap(ctx context.Context, key, rev string, value []byte, ttl time.Duration) error {
	if err := store.Check(key, value); err != nil {
		return err
	}
	// Redis takes an etag for a key that is not there as leave to make it, so
	// that the key is looked at first. What goes between the two is a key's
	// end, which nobody swaps on purpose.
	was, there, err := st.load(ctx, key)
	if err != nil {
		return err
	}
	if !there || was.rev() != rev {
		return store.ErrConflict
	}
	return st.replace(ctx, key, was, newRecord(value, ttl), ttl)
}

// Delete implements store.Store.
func (st *Store) Delete(ctx context.Context, key, rev string) error {
	if err := store.CheckKey(key); err != nil {
		return err
	}
	for range 10 { // without a revision, whatever is there goes
		was, there, err := st.load(ctx, key)
		if err != nil {
			return err
		}
		if rev != "" && (!there || was.rev() != rev) {
			return store.ErrConflict
		}
		if was.writer == "" {
			return nil
		}
		if err = st.remove(ctx, key, was.etag); err == nil {
			return nil
		}
		now, _, readErr := st.load(ctx, key)
		switch {
		case readErr != nil:
			return st.fault("delete", err)
		case now.writer == "":
			return nil
		case now.writer == was.writer && status.Code(err) != codes.Aborted:
			return st.fault("delete", err)
		case rev != "":
			return store.ErrConflict
		}
	}
	return fmt.Errorf("delete: %w", store.ErrConflict)
}

func (st *Store) remove(ctx context.Context, key, etag string) error {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	return st.s.client.DeleteStateWithETag(ctx, st.component, key, &sdk.ETag{Value: etag}, nil,
		&sdk.StateOptions{Concurrency: sdk.StateConcurrencyFirstWrite, Consistency: sdk.StateConsistencyStrong})
}

// List implements store.Store.
func (st *Store) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	return st.index.list(ctx, prefix, after, limit)
}

// Close implements store.Store. The connection is the sidecar's.
func (st *Store) Close() error { return nil }

// fault says what could not be done, and keeps context errors for callers.
func (st *Store) fault(what string, err error) error {
	switch status.Code(err) {
	case codes.Canceled:
		return context.Canceled
	case codes.ResourceExhausted:
		return fmt.Errorf("%w: raise the sidecar's --max-body-size", store.ErrTooLarge)
	case codes.Unavailable, codes.DeadlineExceeded:
		return fmt.Errorf("%s in the state component %s: the sidecar or its store does not answer: %w", what, st.component, err)
	case codes.InvalidArgument, codes.FailedPrecondition:
		if strings.Contains(err.Error(), "not found") || strings.Contains(err.Error(), "not configured") {
			return fmt.Errorf("the sidecar has no state component %q; add it, or correct --state: %w", st.component, err)
		}
	}
	return fmt.Errorf("%s in the state component %s: %w", what, st.component, err)
}

var _ store.Store = (*Store)(nil)

var (
	errSegment = errors.New("a part of the list of keys is damaged") // it holds what is not one
	// errBusy is no ErrConflict, which would tell a caller that the key is there.
	errBusy = errors.New("other processes write to the list of keys all the time")
)
