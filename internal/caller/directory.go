package caller

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Config says where keys come from.
type Config struct {
	File string // a file of keys, or a folder with one key a file, as secrets are mounted; empty for none
	Keys string // keys of the environment, one a line or with semicolons between them
}

const (
	// reloadEvery is how often the files are looked at. They are read, not
	// watched: a mounted secret changes by the swap of a link that no watch on
	// the file sees, and network folders tell nobody.
	reloadEvery = 5 * time.Second
	maxKeysFile = 4 << 20
)

// LogValue implements slog.LogValuer: the keys are not for a log.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// String implements fmt.Stringer, for the same reason.
func (c Config) String() string { return "keys of " + c.File + " and [redacted]" }

// Directory knows every key. Any goroutine may use it.
type Directory struct {
	cfg Config
	log *slog.Logger

	now atomic.Pointer[table]

	mu       sync.Mutex // of what follows, and of replacing now
	accounts map[string]*Account
	sources  []source // that the table was made of
	failed   string   // the last fault, so that it is logged once
}

// table is what the files say at one time. It is never changed.
type table struct {
	keys     []key
	accounts []*Account     // of keys, in their order
	apps     map[string]int // index by the id of an application
}

// Open reads every source once. Its error names every fault of the keys, never
// a key.
func Open(cfg Config, log *slog.Logger) (*Directory, error) {
	d := &Directory{cfg: cfg, log: log, accounts: map[string]*Account{}}
	if _, err := d.load(); err != nil {
		return nil, err
	}
	return d, nil
}

// Run reads the files again whenever they have changed, until ctx ends. A fault
// in them leaves the keys as they were. It returns nil.
func (d *Directory) Run(ctx context.Context) error {
	if d.cfg.File == "" {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(reloadEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			d.Reload()
		}
	}
}

// Reload reads the files now. A fault leaves the keys as they were.
func (d *Directory) Reload() {
	changed, err := d.load()
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case err != nil && err.Error() != d.failed:
		d.failed = err.Error()
		d.log.Error("the keys were not read again; the old ones stay", "err", err)
	case err == nil && (changed || d.failed != ""):
		d.failed = ""
		d.log.Info("keys", "count", len(d.now.Load().keys))
	}
}

// load replaces the table if the sources have changed.
func (d *Directory) load() (changed bool, err error) {
	var sources []source
	if d.cfg.File != "" {
		if sources, err = readKeys(d.cfg.File); err != nil {
			return false, err
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now.Load() != nil && slices.Equal(sources, d.sources) {
		return false, nil
	}
	var keys []key
	for _, s := range sources {
		some, err1 := parseKeys(s.where, s.text)
		keys, err = append(keys, some...), errors.Join(err, err1)
	}
	if err == nil && d.cfg.File != "" && len(keys) == 0 {
		err = fmt.Errorf("%s: no key in it; an empty file would lock everybody out", d.cfg.File)
	}
	more, err2 := parseKeys("INFER_API_KEYS", strings.ReplaceAll(d.cfg.Keys, ";", "\n"))
	if err2 == nil && d.cfg.Keys != "" && len(more) == 0 {
		err2 = errors.New("INFER_API_KEYS: no key in it; unset the variable or put one there")
	}
	keys = append(keys, more...)
	if err = errors.Join(err, err2); err == nil {
		err = distinct(keys)
	}
	if err != nil {
		return false, err
	}
	d.sources = sources
	d.now.Store(d.table(keys))
	return true, nil
}

// table joins keys with their accounts. d.mu is held.
func (d *Directory) table(keys []key) *table {
	t := &table{keys: keys, apps: map[string]int{}}
	now := time.Now()
	for i, k := range keys {
		a := d.accounts[k.name]
		if a == nil {
			a = newAccount(k.name, k.name, k.class, k.limits, now)
			d.accounts[k.name] = a
		} else {
			a.set(k.class, k.limits, now)
		}
		t.accounts = append(t.accounts, a)
		if k.entra != "" {
			t.apps[k.entra] = i
		}
	}
	return t
}

// Find returns the account of a key. It compares digests in constant time, and
// all of them, so that the time says nothing about which are there.
func (d *Directory) Find(secret string) (*Account, bool) {
	digest := Digest(sha256.Sum256([]byte(secret)))
	t := d.now.Load()
	found := find(t.keys, digest, subtle.ConstantTimeCompare)
	if found < 0 {
		return nil, false
	}
	return t.accounts[found], true
}

// find returns the index of digest in keys, or -1. It calls equal for every key.
func find(keys []key, digest Digest, equal func(a, b []byte) int) int {
	found := -1
	for i := range keys {
		same := equal(keys[i].digest[:], digest[:])
		if keys[i].entra != "" { // has no digest
			same = 0
		}
		found = subtle.ConstantTimeSelect(same, i, found)
	}
	return found
}

// App returns the account that the files give an application of Entra ID.
func (d *Directory) App(id string) (*Account, bool) {
	t := d.now.Load()
	i, ok := t.apps[strings.ToLower(id)]
	if !ok {
		return nil, false
	}
	return t.accounts[i], true
}

// Named returns the account of a key by its name.
func (d *Directory) Named(name string) (*Account, bool) {
	for _, a := range d.now.Load().accounts {
		if a.Name == name {
			return a, true
		}
	}
	return nil, false
}

// Labels lists the names of all keys, for metrics that are there before the
// first request.
func (d *Directory) Labels() []string {
	var names []string
	for _, k := range d.now.Load().keys {
		names = append(names, k.name)
	}
	return names
}

// source is a text with keys.
type source struct{ where, text string }

// readKeys returns the lines of a file, or those that a folder's files make:
// the file's name is the key's, its text what follows the name.
func readKeys(path string) ([]source, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read the keys: %w; mount the secret or correct --api-keys-file", err)
	}
	if !info.IsDir() {
		text, err := readSmall(path)
		return []source{{path, text}}, err
	}
	entries, err := os.ReadDir(path) // sorted by name
	if err != nil {
		return nil, fmt.Errorf("read the keys: %w", err)
	}
	var sources []source
	for _, e := range entries {
		// Kubernetes puts the files into ..data and links to them.
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		file := filepath.Join(path, e.Name())
		if info, err := os.Stat(file); err != nil || info.IsDir() {
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("read the keys: %w", err)
			}
			continue
		}
		text, err := readSmall(file)
		if err != nil {
			return nil, err
		}
		if text = strings.TrimSpace(text); strings.ContainsAny(text, "\r\n") {
			return nil, fmt.Errorf("read the keys: %s has several lines; in a folder each file is one key", file)
		}
		sources = append(sources, source{file, e.Name() + ":" + text})
	}
	return sources, nil
}

func readSmall(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the keys: %w", err)
	}
	defer func() { _ = f.Close() }() // it was only read
	text, err := io.ReadAll(io.LimitReader(f, maxKeysFile+1))
	if err != nil {
		return "", fmt.Errorf("read the keys: %w", err)
	}
	if len(text) > maxKeysFile {
		return "", fmt.Errorf("read the keys: %s has more than %d bytes; it is hardly a file of keys", path, maxKeysFile)
	}
	return string(text), nil
}
