package jobs

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/openai"
)

// What the engine fails on is left for the next run, which asks for nothing
// else; half a line of a killed run is removed.
func TestOneShotGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in, out := filepath.Join(t.TempDir(), "in"), filepath.Join(t.TempDir(), "out")
		if err := os.WriteFile(in, []byte(requests(6)), 0o600); err != nil {
			t.Fatal(err)
		}
		e := newEngine()
		broken := true
		e.reply = func(w http.ResponseWriter, prompt string) bool {
			status := map[string]int{"p1": 400, "p2": 500}[prompt]
			if status == 0 || status == 500 && !broken {
				return false
			}
			openai.WriteError(w, &openai.Error{Status: status, Type: openai.TypeServer, Code: openai.CodeInternal, Message: "no"})
			return true
		}
		o := OneShot{In: in, Out: out, Parallel: 2}
		tally, err := o.Run(t.Context(), e)
		if want := (Tally{Total: 6, Succeeded: 4, Failed: 1, Left: 1}); !errors.Is(err, ErrLeft) || tally != want {
			t.Errorf("first run: %+v, %v; want %+v", tally, err, want)
		}
		f, err := os.OpenFile(out, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(`{"id":"batch_req_3","custom_id":"c2","resp` + strings.Repeat("x", 4000)); err != nil {
			t.Fatal(err)
		}
		_ = f.Close() // it was written
		broken = false
		tally, err = o.Run(t.Context(), e)
		if want := (Tally{Total: 6, Earlier: 5, Succeeded: 1}); err != nil || tally != want || e.runs("p2") != 4 || e.runs("p0") != 1 {
			t.Errorf("second run: %+v, %v; want %+v", tally, err, want)
		}
		text, err := os.ReadFile(out)
		if n := strings.Count(string(text), "\n"); err != nil || n != 6 || !strings.HasSuffix(string(text), "}\n") {
			t.Errorf("%d lines, %v:\n%s", n, err, text)
		}
	})
}

// cramped is a file on a disk that has no room for one write, but for half of it.
type cramped struct {
	*os.File
	writes int
}

func (c *cramped) Write(b []byte) (int, error) {
	if c.writes++; c.writes != 2 {
		return c.File.Write(b)
	}
	n, err := c.File.Write(b[:len(b)/2])
	return n, errors.Join(syscall.ENOSPC, err)
}

// Half a line is removed, so that the next is one of its own.
func TestOneShotRemovesHalfALine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	f, done, err := openOutput(path)
	if err != nil || len(done) != 0 {
		t.Fatal(done, err)
	}
	e := newEngine()
	e.took = func() time.Duration { return 0 }
	s := &shot{out: &cramped{File: f}}
	for i, want := range []error{nil, syscall.ENOSPC, nil} {
		l := line{CustomID: fmt.Sprint("c", i), URL: "/v1/completions", Body: []byte(`{"prompt":"p"}`)}
		if err := s.one(t.Context(), e, i, l); !errors.Is(err, want) {
			t.Errorf("line %d: %v, want %v", i, err, want)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if f, done, err = openOutput(path); err != nil || len(done) != 2 || !done["c0"] || !done["c2"] {
		t.Fatalf("read as %v, %v", done, err)
	}
	_ = f.Close() // it was only read
}
