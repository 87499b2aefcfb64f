package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// The buckets of the file: values, and what expires, ordered by when.
var (
	bucketValues  = []byte("values")
	bucketExpires = []byte("expires")
)

const (
	// lockWait is how long Open waits for a process that is about to end.
	lockWait = 2 * time.Second
	// sweepMost bounds how many expired values one write removes.
	sweepMost = 64
	// headBytes stand before each value: revision and expiry.
	headBytes = 16
)

// Bolt is a Store in one file, for one process. A write returns once it is on
// the disk; writes that come together share the wait.
type Bolt struct {
	db  *bbolt.DB
	dir string

	mu    sync.Mutex
	queue []*pending
	turn  sync.Mutex // held by whoever writes the queue to the disk
}

// pending is one write. Its fields are guarded by Bolt.turn.
type pending struct {
	op   func(*bbolt.Tx) error // must check before it changes anything
	done bool
	err  error
}

// OpenBolt opens or makes the store in dir. The error says what to do:
// ErrLocked while another process has it, ErrCorrupt when the file is damaged.
func OpenBolt(dir string) (*Bolt, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder %s: %w; name one that this user may write to", dir, bare(err))
	}
	file := filepath.Join(dir, "infer.db")
	db, err := open(file)
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return nil, fmt.Errorf("%w: %s; give each process a folder of its own, or stop the other one", ErrLocked, file)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, ErrCorrupt):
		return nil, fmt.Errorf("%w: %s is damaged (%v); restore it from a copy, or move it away to begin with an empty one", ErrCorrupt, file, err)
	case err != nil:
		return nil, fmt.Errorf("open %s: %w; the folder must be writable and its file system must have locks", file, full(bare(err), dir))
	}
	b := &Bolt{db: db, dir: dir}
	err = b.write(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketValues, bucketExpires} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		_ = db.Close() // the first error says more
		return nil, err
	}
	return b, nil
}

// open turns bbolt's panics over a damaged file into an error.
func open(file string) (db *bbolt.DB, err error) {
	defer recovered(&err)
	if info, err := os.Stat(file); err == nil && info.Size() > 0 {
		if err := whole(file, info.Size()); err != nil {
			return nil, err
		}
	}
	return bbolt.Open(file, 0o600, &bbolt.Options{Timeout: lockWait, FreelistType: bbolt.FreelistMapType})
}

// whole looks at the file without reading far into it: to read what a file
// that was cut short no longer has would end the process.
func whole(file string, size int64) error {
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: lockWait, ReadOnly: true})
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }() // nothing was written
	return db.View(func(tx *bbolt.Tx) error {
		if size < tx.Size() {
			return fmt.Errorf("%w: %d of %d bytes are there", berrors.ErrInvalid, size, tx.Size())
		}
		return nil
	})
}

func recovered(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", ErrCorrupt, p)
	}
}

// bare drops the operation and the path from a system's error.
func bare(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// full names a full disk. bbolt keeps only the words of what a file that cannot
// grow met (v1.5.0, DB.grow).
func full(err error, dir string) error {
	if err == nil {
		return nil
	}
	for _, e := range []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		if errors.Is(err, e) || strings.HasPrefix(err.Error(), "file resize error:") && strings.HasSuffix(err.Error(), e.Error()) {
			return fmt.Errorf("%w: no space for %s (%v); free some, or give it a larger volume", ErrFull, dir, err)
		}
	}
	return err
}

// write applies op durably. Whoever gets the turn writes for all that wait, so
// that many writers share one sync of the disk.
func (b *Bolt) write(op func(*bbolt.Tx) error) error {
	mine := &pending{op: op}
	b.mu.Lock()
	b.queue = append(b.queue, mine)
	b.mu.Unlock()
	b.turn.Lock()
	defer b.turn.Unlock()
	if mine.done {
		return mine.err
	}
	b.mu.Lock()
	all := b.queue
	b.queue = nil
	b.mu.Unlock()
	err := b.commit(all)
	for _, p := range all {
		if p.done = true; err != nil {
			p.err = err
		}
	}
	return mine.err
}

func (b *Bolt) commit(all []*pending) (err error) {
	defer recovered(&err)
	err = b.db.Update(func(tx *bbolt.Tx) error {
		for _, p := range all {
			p.err = p.op(tx)
		}
		return sweep(tx, time.Now())
	})
	return full(err, b.dir)
}

func (b *Bolt) read(op func(*bbolt.Tx) error) (err error) {
	defer recovered(&err)
	return b.db.View(op)
}

// sweep removes some of what has expired.
func sweep(tx *bbolt.Tx, now time.Time) error {
	expires := tx.Bucket(bucketExpires)
	if expires == nil {
		return nil // the first write of all
	}
	var old [][]byte
	for c, k := expires.Cursor(), []byte(nil); len(old) < sweepMost; {
		if k == nil {
			k, _ = c.First()
		} else {
			k, _ = c.Next()
		}
		if k == nil || int64(binary.BigEndian.Uint64(k)) > now.UnixNano() {
			break
		}
		old = append(old, bytes.Clone(k))
	}
	for _, k := range old {
		if err := errors.Join(expires.Delete(k), tx.Bucket(bucketValues).Delete(k[8:])); err != nil {
			return err
		}
	}
	return nil
}

// find returns what is there and has not expired, valid within tx.
func find(tx *bbolt.Tx, key string) (value []byte, rev string, ok bool) {
	raw := tx.Bucket(bucketValues).Get([]byte(key))
	if len(raw) < headBytes {
		return nil, "", false
	}
	if at := int64(binary.BigEndian.Uint64(raw[8:])); at != 0 && at <= time.Now().UnixNano() {
		return nil, "", false
	}
	return raw[headBytes:], strconv.FormatUint(binary.BigEndian.Uint64(raw), 16), true
}

func put(tx *bbolt.Tx, key string, value []byte, ttl time.Duration) error {
	values := tx.Bucket(bucketValues)
	if err := unexpire(tx, key); err != nil {
		return err
	}
	rev, err := values.NextSequence()
	if err != nil {
		return err
	}
	raw := make([]byte, headBytes, headBytes+len(value))
	binary.BigEndian.PutUint64(raw, rev)
	if ttl > 0 {
		binary.BigEndian.PutUint64(raw[8:], uint64(time.Now().Add(ttl).UnixNano()))
		if err := tx.Bucket(bucketExpires).Put(append(bytes.Clone(raw[8:16]), key...), nil); err != nil {
			return err
		}
	}
	return values.Put([]byte(key), append(raw, value...))
}

// unexpire takes back the expiry of the value that is about to go.
func unexpire(tx *bbolt.Tx, key string) error {
	raw := tx.Bucket(bucketValues).Get([]byte(key))
	if len(raw) < headBytes || binary.BigEndian.Uint64(raw[8:]) == 0 {
		return nil
	}
	return tx.Bucket(bucketExpires).Delete(append(bytes.Clone(raw[8:16]), key...))
}

// Create implements Store.
func (b *Bolt) Create(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if err := errors.Join(ctx.Err(), Check(key, value)); err != nil {
		return err
	}
	return b.write(func(tx *bbolt.Tx) error {
		if _, _, ok := find(tx, key); ok {
			return ErrConflict
		}
		return put(tx, key, value, ttl)
	})
}

// Get implements Store.
func (b *Bolt) Get(ctx context.Context, key string) (Item, error) {
	if err := errors.Join(ctx.Err(), CheckKey(key)); err != nil {
		return Item{}, err
	}
	var it Item
	err := b.read(func(tx *bbolt.Tx) error {
		value, rev, ok := find(tx, key)
		if !ok {
			return ErrNotFound
		}
		it = Item{Value: append([]byte{}, value...), Rev: rev}
		return nil
	})
	return it, err
}

// Swap implements Store.
func (b *Bolt) Swap(ctx context.Context, key, rev string, value []byte, ttl time.Duration) error {
	if err := errors.Join(ctx.Err(), Check(key, value)); err != nil {
		return err
	}
	return b.write(func(tx *bbolt.Tx) error {
		if _, found, ok := find(tx, key); !ok || found != rev {
			return ErrConflict
		}
		return put(tx, key, value, ttl)
	})
}

// Delete implements Store.
func (b *Bolt) Delete(ctx context.Context, key, rev string) error {
	if err := errors.Join(ctx.Err(), CheckKey(key)); err != nil {
		return err
	}
	return b.write(func(tx *bbolt.Tx) error {
		_, found, ok := find(tx, key)
		if rev != "" && (!ok || found != rev) {
			return ErrConflict
		}
		return errors.Join(unexpire(tx, key), tx.Bucket(bucketValues).Delete([]byte(key)))
	})
}

// List implements Store.
func (b *Bolt) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var keys []string
	err := b.read(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketValues).Cursor()
		from := max(prefix, after)
		for k, _ := c.Seek([]byte(from)); k != nil && bytes.HasPrefix(k, []byte(prefix)) && len(keys) < limit; k, _ = c.Next() {
			if _, _, ok := find(tx, string(k)); ok && string(k) > after {
				keys = append(keys, string(k))
			}
		}
		return nil
	})
	return keys, err
}

// Close implements Store.
func (b *Bolt) Close() error { return b.db.Close() }
