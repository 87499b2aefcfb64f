package jobs

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"infer/internal/store"
)

// ref names a content that is too large for a value.
type ref struct {
	ID    string `json:"id"`
	Bytes int64  `json:"bytes"`
}

// blobs keep large contents. A content is whole once commit has returned, and
// never changes; what refers to it is written after it. One that nothing refers
// to goes when its time is over.
type blobs interface {
	create(ctx context.Context, ttl time.Duration) (blobWriter, error)
	open(ctx context.Context, r ref) (io.ReadCloser, error)
	remove(ctx context.Context, r ref) error
	sweep() // removes what is out of time, where the store does not
}

// blobWriter is one content in the making; it ends with commit or abort.
type blobWriter interface {
	io.Writer
	commit() (ref, error)
	abort()
}

const (
	inlineBytes = 256 << 10 // what is no longer stands in the value itself
	chunkBytes  = 1 << 20
)

// content is a body, in the value or beside it.
type content struct {
	Inline []byte `json:"inline,omitempty"`
	Ref    *ref   `json:"ref,omitzero"`
}

// is says that both stand beside their values, and are one.
func (c content) is(d content) bool { return c.Ref != nil && d.Ref != nil && c.Ref.ID == d.Ref.ID }

// put keeps b for at least ttl.
func (s *Service) put(ctx context.Context, b []byte, ttl time.Duration) (content, error) {
	if len(b) <= inlineBytes {
		return content{Inline: b}, nil
	}
	w, err := s.blobs.create(ctx, ttl)
	if err != nil {
		return content{}, err
	}
	if _, err := w.Write(b); err != nil {
		w.abort()
		return content{}, err
	}
	r, err := w.commit()
	if err != nil {
		return content{}, err
	}
	return content{Ref: &r}, nil
}

// get returns what put was given.
func (s *Service) get(ctx context.Context, c content) ([]byte, error) {
	if c.Ref == nil {
		return c.Inline, nil
	}
	r, err := s.blobs.open(ctx, *c.Ref)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

// drop removes what stands beside a value. What stays goes with its time.
func (s *Service) drop(ctx context.Context, c content) {
	if c.Ref == nil {
		return
	}
	if err := s.blobs.remove(ctx, *c.Ref); err != nil {
		s.log.Warn("content cannot be removed", "id", c.Ref.ID, "err", err)
	}
}

// notTaken says that a write certainly did not take place, so that nothing refers
// to what was put for it. After any other error something may: it goes with its
// time.
func notTaken(err error) bool {
	for _, e := range []error{store.ErrConflict, store.ErrFull, store.ErrTooLarge, store.ErrBadKey} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// folder keeps contents as files, named by when their time is over.
type folder struct{ dir string }

func openFolder(dir string) (folder, error) {
	f := folder{filepath.Join(dir, "blobs")}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return f, fmt.Errorf("make folder for contents: %w", err)
	}
	half, err := filepath.Glob(filepath.Join(f.dir, "*.part"))
	if err != nil {
		return f, fmt.Errorf("list contents: %w", err)
	}
	for _, name := range half { // of a process that ended; the folder is ours alone
		if err := os.Remove(name); err != nil {
			return f, fmt.Errorf("remove half a content: %w", err)
		}
	}
	return f, nil
}

func (f folder) create(_ context.Context, ttl time.Duration) (blobWriter, error) {
	id := rand.Text() + "." + strconv.FormatInt(time.Now().Add(ttl).Unix(), 10)
	file, err := os.OpenFile(filepath.Join(f.dir, id+".part"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, noSpace(err)
	}
	return &fileWriter{f: f, id: id, file: file}, nil
}

// noSpace names a full disk as the store does.
func noSpace(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG) {
		return fmt.Errorf("%w: %v", store.ErrFull, err)
	}
	return err
}

type fileWriter struct {
	f    folder
	id   string
	file *os.File
	n    int64
}

func (w *fileWriter) Write(p []byte) (int, error) {
	n, err := w.file.Write(p)
	w.n += int64(n)
	return n, noSpace(err)
}

func (w *fileWriter) commit() (ref, error) {
	err := errors.Join(w.file.Sync(), w.file.Close())
	if err == nil {
		err = os.Rename(w.file.Name(), filepath.Join(w.f.dir, w.id))
	}
	if err == nil {
		err = syncFolder(w.f.dir)
	}
	if err != nil {
		_ = os.Remove(w.file.Name()) // the first error says more
		return ref{}, noSpace(err)
	}
	return ref{w.id, w.n}, nil
}

// syncFolder makes a rename outlast a power cut.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (w *fileWriter) abort() {
	_ = w.file.Close() // nobody will read it
	_ = os.Remove(w.file.Name())
}

func (f folder) path(r ref) (string, error) {
	if r.ID == "" || strings.ContainsAny(r.ID, "/\\") {
		return "", fmt.Errorf("%w: content %q", store.ErrNotFound, r.ID)
	}
	return filepath.Join(f.dir, r.ID), nil
}

func (f folder) open(_ context.Context, r ref) (io.ReadCloser, error) {
	name, err := f.path(r)
	if err != nil {
		return nil, err
	}
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: content %s", store.ErrNotFound, r.ID)
	}
	return file, err
}

func (f folder) remove(_ context.Context, r ref) error {
	name, err := f.path(r)
	if err != nil {
		return err
	}
	if err := os.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (f folder) sweep() {
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return // tried again soon
	}
	for _, e := range entries {
		at, err := strconv.ParseInt(strings.TrimPrefix(filepath.Ext(e.Name()), "."), 10, 64)
		if err == nil && at < time.Now().Unix() {
			_ = os.Remove(filepath.Join(f.dir, e.Name())) // tried again soon
		}
	}
}

// chunks keep contents as values of a store.
type chunks struct{ store store.Store }

func chunkKey(id string, i int) string { return fmt.Sprintf("blob/%s/%06d", id, i) }

func (c chunks) create(ctx context.Context, ttl time.Duration) (blobWriter, error) {
	return &chunkWriter{ctx: ctx, c: c, id: rand.Text(), ttl: ttl}, nil
}

func (c chunks) sweep() {}

type chunkWriter struct {
	ctx context.Context // of the one call that writes a content
	c   chunks
	id  string
	ttl time.Duration
	buf bytes.Buffer
	n   int
	sum int64
}

func (w *chunkWriter) Write(p []byte) (int, error) {
	w.buf.Write(p)
	w.sum += int64(len(p))
	for w.buf.Len() >= chunkBytes {
		if err := w.flush(w.buf.Next(chunkBytes)); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

func (w *chunkWriter) flush(b []byte) error {
	err := w.c.store.Create(w.ctx, chunkKey(w.id, w.n), b, w.ttl)
	w.n++
	return err
}

func (w *chunkWriter) commit() (ref, error) {
	if w.buf.Len() > 0 {
		if err := w.flush(w.buf.Bytes()); err != nil {
			w.abort()
			return ref{}, err
		}
	}
	return ref{w.id, w.sum}, nil
}

func (w *chunkWriter) abort() {
	_ = w.c.remove(context.WithoutCancel(w.ctx), ref{w.id, int64(w.n) * chunkBytes}) // it goes with its time
}

func (c chunks) open(ctx context.Context, r ref) (io.ReadCloser, error) {
	return &chunkReader{ctx: ctx, c: c, r: r}, nil
}

func (c chunks) remove(ctx context.Context, r ref) error {
	var errs []error
	for i := range int((r.Bytes + chunkBytes - 1) / chunkBytes) {
		errs = append(errs, c.store.Delete(ctx, chunkKey(r.ID, i), ""))
	}
	return errors.Join(errs...)
}

type chunkReader struct {
	ctx  context.Context // of the one call that reads a content
	c    chunks
	r    ref
	next int
	rest []byte
	read int64
}

func (r *chunkReader) Read(p []byte) (int, error) {
	for len(r.rest) == 0 {
		if r.read >= r.r.Bytes {
			return 0, io.EOF
		}
		it, err := r.c.store.Get(r.ctx, chunkKey(r.r.ID, r.next))
		if err != nil {
			return 0, fmt.Errorf("read piece %d of content %s: %w", r.next, r.r.ID, err)
		}
		r.rest = it.Value
		r.next++
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	r.read += int64(n)
	return n, nil
}

func (r *chunkReader) Close() error { return nil }
