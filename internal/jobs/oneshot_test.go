package jobs

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

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
