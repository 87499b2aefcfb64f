package store

import (
	"bytes"
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Memory is a Store that ends with the process.
type Memory struct {
	maxBytes int64

	mu    sync.Mutex
	items map[string]kept
	bytes int64 // of all keys and values
	rev   uint64
}

type kept struct {
	value   []byte
	rev     uint64
	expires time.Time // zero means never
}

// NewMemory returns an empty store of at most maxBytes of keys and values.
func NewMemory(maxBytes int64) *Memory {
	return &Memory{maxBytes: maxBytes, items: map[string]kept{}}
}

// get returns what is there and has not expired. m.mu is held.
func (m *Memory) get(key string) (kept, bool) {
	k, ok := m.items[key]
	if ok && k.over(time.Now()) {
		m.drop(key)
		return kept{}, false
	}
	return k, ok
}

func (k kept) over(now time.Time) bool { return !k.expires.IsZero() && !now.Before(k.expires) }

func (m *Memory) drop(key string) {
	if k, ok := m.items[key]; ok {
		m.bytes -= int64(len(key) + len(k.value))
		delete(m.items, key)
	}
}

func (m *Memory) put(key string, value []byte, ttl time.Duration) error {
	size := int64(len(key) + len(value))
	if old, ok := m.items[key]; ok {
		size -= int64(len(key) + len(old.value))
	}
	if m.bytes+size > m.maxBytes {
		m.sweep()
		if m.bytes+size > m.maxBytes {
			return ErrFull
		}
	}
	m.bytes += size
	m.rev++
	k := kept{value: bytes.Clone(value), rev: m.rev}
	if ttl > 0 {
		k.expires = time.Now().Add(ttl)
	}
	m.items[key] = k
	return nil
}

// sweep forgets what has expired and nobody asked for since.
func (m *Memory) sweep() {
	now := time.Now()
	for key, k := range m.items {
		if k.over(now) {
			m.drop(key)
		}
	}
}

// Create implements Store.
func (m *Memory) Create(_ context.Context, key string, value []byte, ttl time.Duration) error {
	if err := Check(key, value); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.get(key); ok {
		return ErrConflict
	}
	return m.put(key, value, ttl)
}

// Get implements Store.
func (m *Memory) Get(_ context.Context, key string) (Item, error) {
	if err := CheckKey(key); err != nil {
		return Item{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.get(key)
	if !ok {
		return Item{}, ErrNotFound
	}
	return Item{Value: bytes.Clone(k.value), Rev: strconv.FormatUint(k.rev, 16)}, nil
}

// Swap implements Store.
func (m *Memory) Swap(_ context.Context, key, rev string, value []byte, ttl time.Duration) error {
	if err := Check(key, value); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if k, ok := m.get(key); !ok || strconv.FormatUint(k.rev, 16) != rev {
		return ErrConflict
	}
	return m.put(key, value, ttl)
}

// Delete implements Store.
func (m *Memory) Delete(_ context.Context, key, rev string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.get(key)
	if rev != "" && (!ok || strconv.FormatUint(k.rev, 16) != rev) {
		return ErrConflict
	}
	m.drop(key)
	return nil
}

// List implements Store.
func (m *Memory) List(_ context.Context, prefix, after string, limit int) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	var keys []string
	for key, k := range m.items {
		if strings.HasPrefix(key, prefix) && key > after && !k.over(now) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys[:min(len(keys), limit)], nil
}

// Close implements Store.
func (m *Memory) Close() error { return nil }
