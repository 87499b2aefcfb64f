package jobs

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"infer/internal/store"
)

const smallDisk = 1 << 20

// fullDisk returns a folder that takes a megabyte, and how to make it large:
// a file system of its own where this process may mount one, otherwise the
// bound of a file's size that any process may set itself.
func fullDisk(t *testing.T) (dir string, grow func()) {
	t.Helper()
	dir = t.TempDir()
	err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", smallDisk))
	if err == nil {
		t.Cleanup(func() {
			if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
				t.Errorf("unmount: %v", err)
			}
		})
		return dir, func() {
			if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=64m"); err != nil {
				t.Errorf("remount: %v", err)
			}
		}
	}
	t.Logf("no file system can be mounted here (%v); files are bounded instead", err)
	return limitFiles(t)
}

// limitFiles bounds the files of this process until grow is called.
func limitFiles(t *testing.T) (dir string, grow func()) {
	t.Helper()
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: smallDisk, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	grow = func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &was); err != nil {
			t.Errorf("restore the bound: %v", err)
		}
	}
	t.Cleanup(grow)
	return t.TempDir(), grow
}

// A full disk is said to clients, loses nothing that was accepted, and is over
// when there is room again.
func TestFullDisk(t *testing.T) {
	for name, disk := range map[string]func(*testing.T) (string, func()){"volume": fullDisk, "files": limitFiles} {
		t.Run(name, func(t *testing.T) {
			dir, grow := disk(t)
			st, err := store.OpenBolt(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := st.Close(); err != nil {
					t.Error(err)
				}
			}()
			e := newEngine()
			e.took = func() time.Duration { return 0 }
			r := newReplica(t, st, dir, e.chain)
			defer r.end()

			const full = "the server's store is full; delete files that are no longer needed, or give --state a larger volume"
			// A job's answer is as long as its prompt.
			job := func(i int) string {
				return fmt.Sprintf(`{"url":"/v1/completions","body":{"prompt":"%d %s"}}`, i, strings.Repeat("x", 60<<10))
			}
			large := requests(2 * smallDisk / 100)
			var accepted []string
			for i := 0; ; i++ {
				status, text := r.do("POST", "/v1/jobs", job(i))
				if status == 202 {
					id, _ := object(t, text)["id"].(string)
					accepted = append(accepted, id)
				} else if status == 503 && strings.Contains(text, full) && strings.Contains(text, `"store_unavailable"`) {
					break
				} else {
					t.Fatalf("job %d: %d %s", i, status, text)
				}
				if i > 100 {
					t.Fatal("the disk is never full")
				}
			}
			if len(accepted) == 0 {
				t.Fatal("nothing was accepted")
			}
			if status, text := r.upload("batch", large); status != 503 || !strings.Contains(text, full) {
				t.Errorf("upload to a full disk: %d %s", status, text)
			}
			for _, id := range accepted {
				if status, text := r.do("GET", "/v1/jobs/"+id, ""); status != 200 {
					t.Errorf("a full disk cannot be read: %d %s", status, text)
				}
			}

			grow()
			if status, text := r.upload("batch", large); status != 200 {
				t.Errorf("upload after there is room: %d %s", status, text)
			}
			last, _ := r.must("POST", "/v1/jobs", job(1000))["id"].(string)
			for _, id := range append(accepted, last) {
				if err := r.within(time.Minute, "/v1/jobs/"+id); err != nil {
					t.Errorf("%s: %v", id, err)
				}
			}
		})
	}
}

// within waits on the real clock until a job has succeeded.
func (r *replica) within(limit time.Duration, path string) error {
	for end := time.Now().Add(limit); time.Now().Before(end); {
		o := r.must("GET", path, "")
		switch {
		case o["status"] == "succeeded":
			return nil
		case ended3(o):
			return fmt.Errorf("ended as %v", o["status"])
		}
		<-time.After(50 * time.Millisecond)
	}
	return errors.New("it never ends")
}
