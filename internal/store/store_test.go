package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"

	"infer/internal/store"
	"infer/internal/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return store.NewMemory(64 << 20) })
}

func TestBolt(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return bolt(t, t.TempDir()) })
}

func bolt(t testing.TB, dir string) *store.Bolt {
	t.Helper()
	b, err := store.OpenBolt(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() }) // a test may have closed it
	return b
}

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := store.NewMemory(1000)
		if err := m.Create(t.Context(), "a", make([]byte, 600), time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := m.Create(t.Context(), "b", make([]byte, 600), 0); !errors.Is(err, store.ErrFull) {
			t.Errorf("over the bound: %v, want ErrFull", err)
		}
		<-time.After(time.Minute)
		if err := m.Create(t.Context(), "b", make([]byte, 600), 0); err != nil {
			t.Errorf("after the first expired: %v", err)
		}
		if err := m.Delete(t.Context(), "b", ""); err != nil {
			t.Fatal(err)
		}
		if err := m.Create(t.Context(), "c", make([]byte, 900), 0); err != nil {
			t.Errorf("after a delete: %v", err)
		}
	})
}

func TestBoltSurvivesReopening(t *testing.T) {
	dir := t.TempDir()
	b := bolt(t, dir)
	if err := b.Create(t.Context(), "a", []byte("one"), 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	it, err := bolt(t, dir).Get(t.Context(), "a")
	if err != nil || string(it.Value) != "one" {
		t.Errorf("got %q, %v", it.Value, err)
	}
}

func TestBoltIsForOneProcess(t *testing.T) {
	dir := t.TempDir()
	bolt(t, dir)
	_, err := store.OpenBolt(dir)
	if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), "folder of its own") {
		t.Errorf("second open: %v", err)
	}
}

func TestDamagedFileIsNamed(t *testing.T) {
	for name, damage := range map[string]func(whole []byte) []byte{
		"no store":  func([]byte) []byte { return []byte(strings.Repeat("not a store\n", 2000)) },
		"cut short": func(whole []byte) []byte { return whole[:len(whole)/4] },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := bolt(t, dir)
			for i := range 20 {
				if err := b.Create(t.Context(), fmt.Sprintf("k/%d", i), make([]byte, 50_000), 0); err != nil {
					t.Fatal(err)
				}
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "infer.db")
			whole, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, damage(whole), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err = store.OpenBolt(dir)
			if !errors.Is(err, store.ErrCorrupt) || !strings.Contains(err.Error(), "move it away") {
				t.Errorf("open: %v", err)
			}
		})
	}
}

// What expires is removed from the file, not only hidden.
func TestBoltSweeps(t *testing.T) {
	dir := t.TempDir()
	b := bolt(t, dir)
	for i := range 200 {
		if err := b.Create(t.Context(), fmt.Sprintf("old/%d", i), []byte("x"), time.Nanosecond); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Create(t.Context(), "new", []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := bbolt.Open(filepath.Join(dir, "infer.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.View(func(tx *bbolt.Tx) error {
		if n := tx.Bucket([]byte("values")).Stats().KeyN; n != 1 {
			t.Errorf("%d values are in the file, want 1", n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

func BenchmarkBoltSwap(b *testing.B) {
	s := bolt(b, b.TempDir())
	if err := s.Create(b.Context(), "k", make([]byte, 2048), time.Hour); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		it, err := s.Get(b.Context(), "k")
		if err == nil {
			err = s.Swap(b.Context(), "k", it.Rev, it.Value, time.Hour)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
