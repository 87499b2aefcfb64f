package ort

import (
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCollapseKeepsContent maps memory, moves it, and reads it again. Whether it
// moves is the kernel's setting.
func TestCollapseKeepsContent(t *testing.T) {
	before, err := anonymous()
	if err != nil {
		t.Fatal(err)
	}
	const size = 4 * hugePage
	m, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Munmap(m); err != nil {
			t.Error(err)
		}
	}()
	for i := range m {
		m[i] = byte(i >> 12)
	}
	now, err := anonymous()
	if err != nil {
		t.Fatal(err)
	}
	if slices.Equal(before, now) {
		t.Fatal("a mapping of 8 MiB is not seen")
	}
	moved := collapse(before)
	for i := range m {
		if m[i] != byte(i>>12) {
			t.Fatalf("byte %d changed", i)
		}
	}
	setting, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if can := err == nil && !strings.Contains(string(setting), "[never]"); can && moved < size-2*hugePage {
		t.Errorf("moved %d bytes of %d, the kernel's setting is %s", moved, size, setting)
	}
	if again := collapse(now); again != 0 && slices.Equal(now, before) {
		t.Errorf("moved %d bytes that were there before", again)
	}
}
