package gguf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// replaceDir lets fill write a folder and gives it the name dst in one step.
// The folder in the making is locked, and one whose maker was killed is not,
// which is how leftovers are told from the work of another process.
func replaceDir(dst string, fill func(dir string) error) (err error) {
	parent, base := filepath.Dir(dst), filepath.Base(dst)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fmt.Errorf("import gguf: %w", err)
	}
	dir, unlock, err := makeDir(parent, base)
	if err != nil {
		return fmt.Errorf("import gguf: %w", err)
	}
	defer unlock()
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := fill(dir); err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return fmt.Errorf("import gguf: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return err
	}
	if err := os.Rename(dir, dst); err != nil {
		return fmt.Errorf("import gguf: %w", err)
	}
	return syncDir(parent)
}

// makeDir makes a locked temporary folder. The parent is locked meanwhile, so
// that no other import sweeps the folder away before it has its lock.
func makeDir(parent, base string) (dir string, unlock func(), err error) {
	release, err := lock(parent, syscall.LOCK_EX)
	if err != nil {
		return "", nil, err
	}
	defer release()
	sweep(parent, base)
	if dir, err = os.MkdirTemp(parent, "."+base+".importing-"); err != nil {
		return "", nil, err
	}
	if unlock, err = lock(dir, syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return dir, unlock, nil
}

// lock takes the folder for this process; the kernel gives it back when the
// process ends, however it ends.
func lock(dir string, how int) (unlock func(), err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(d.Fd()), how); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return func() { _ = d.Close() }, nil
}

// sweep removes what killed imports of the same folder left. It is best
// effort: what cannot be removed only takes room.
func sweep(parent, base string) {
	old, err := filepath.Glob(filepath.Join(parent, "."+base+".importing-*"))
	if err != nil {
		return // base holds a pattern character; nothing is swept
	}
	for _, dir := range old {
		if unlock, err := lock(dir, syscall.LOCK_EX|syscall.LOCK_NB); err == nil {
			_ = os.RemoveAll(dir)
			unlock()
		}
	}
}

// writeFile creates a file, fills it and waits until it is on the disk.
func writeFile(name string, fill func(*os.File) error) (err error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("import gguf: %w", err)
	}
	defer func() {
		if e := f.Close(); err == nil && e != nil {
			err = fmt.Errorf("import gguf: %w", e)
		}
	}()
	if err := fill(f); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(name), err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(name), err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("import gguf: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("import gguf: %w", err)
	}
	return nil
}
