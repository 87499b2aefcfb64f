package jobs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/store"
)

// errVague is what a store says that was cut off from its client.
var errVague = errors.New("the store did not answer")

// vague is a store that takes the first write that of matches, and says that it
// did not answer.
type vague struct {
	store.Store
	of   func(op, key, value string) bool
	said atomic.Bool
}

// writes matches an operation on the keys with a prefix, and a part of the value.
func writes(op, prefix, part string) func(op, key, value string) bool {
	return func(o, key, value string) bool {
		return o == op && strings.HasPrefix(key, prefix) && strings.Contains(value, part)
	}
}

func (v *vague) say(op, key string, value []byte, err error) error {
	if err == nil && v.of(op, key, string(value)) && v.said.CompareAndSwap(false, true) {
		return errVague
	}
	return err
}

func (v *vague) Create(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	return v.say("create", key, value, v.Store.Create(ctx, key, value, ttl))
}

func (v *vague) Swap(ctx context.Context, key, rev string, value []byte, ttl time.Duration) error {
	return v.say("swap", key, value, v.Store.Swap(ctx, key, rev, value, ttl))
}

// failing is a store that does not take some Creates of keys with a prefix.
type failing struct {
	store.Store
	prefix string
	err    error        // what it says, errAway if it is nil
	left   atomic.Int32 // so many of them
}

func (f *failing) Create(ctx context.Context, key string, value []byte, ttl time.Duration) error {
	if strings.HasPrefix(key, f.prefix) && f.left.Add(-1) >= 0 {
		return cmp.Or(f.err, errAway)
	}
	return f.Store.Create(ctx, key, value, ttl)
}

// over runs a test on one replica whose store is vague about one write.
func over(t *testing.T, of func(op, key, value string) bool, test func(t *testing.T, r *replica, e *engine)) {
	synctest.Test(t, func(t *testing.T) {
		e, st := newEngine(), &vague{Store: store.NewMemory(1 << 26), of: of}
		r := newReplica(t, st, "", e.chain)
		defer r.end()
		test(t, r, e)
		if !st.said.Load() {
			t.Error("the store took nothing that it was vague about: the test does not test")
		}
	})
}

// long lets the engine answer with what does not stand in a value.
func (e *engine) long() {
	e.reply = func(w http.ResponseWriter, prompt string) bool {
		writeJSON(w, http.StatusOK, map[string]string{"text": strings.Repeat("x", inlineBytes), "prompt": prompt})
		return true
	}
}

// A file whose write took place without an answer has its content.
func TestFileOverAVagueWrite(t *testing.T) {
	t.Run("output", func(t *testing.T) {
		over(t, writes("create", "file/", "batch_output"), func(t *testing.T, r *replica, e *engine) {
			o := r.until("/v1/batches/"+r.batchOf(requests(3), "24h"), ended3)
			if lines := r.content(o, "output_file_id"); o["status"] != "completed" || len(lines) != 3 || e.runs("p0") != 1 {
				t.Errorf("%v with lines %q after %d runs", o, lines, e.runs("p0"))
			}
		})
	})
	t.Run("upload", func(t *testing.T) {
		over(t, writes("create", "file/", ""), func(t *testing.T, r *replica, e *engine) {
			if status, text := r.upload("batch", requests(1)); status != 503 {
				t.Fatalf("upload: %d %s", status, text)
			}
			for _, f := range r.must("GET", "/v1/files", "")["data"].([]any) {
				id := f.(map[string]any)["id"].(string)
				if status, text := r.do("GET", "/v1/files/"+id+"/content", ""); text != requests(1) {
					t.Errorf("its content: %d %s", status, text)
				}
			}
		})
	})
}

// A line whose result was stored without an answer has its answer, put once.
func TestLineOverAVagueWrite(t *testing.T) {
	over(t, writes("create", "line/", ""), func(t *testing.T, r *replica, e *engine) {
		e.long()
		o := r.until("/v1/batches/"+r.batchOf(requests(3), "24h"), ended3)
		if o["status"] != "completed" || count(o, "completed") != 3 || e.runs("p0")+e.runs("p1")+e.runs("p2") != 3 {
			t.Fatalf("ended as %v", o)
		}
		for i, line := range r.content(o, "output_file_id") {
			if !strings.Contains(line, fmt.Sprintf(`"prompt":"p%d"`, i)) {
				t.Errorf("line %d is %.200s", i, line)
			}
		}
		synctest.Wait() // the results are removed behind the last word
		owners := map[string]bool{}
		keys, err := r.s.store.List(t.Context(), "blob/", "", page)
		for _, key := range keys {
			owners[strings.Split(key, "/")[1]] = true
		}
		if err != nil || len(owners) != 2 { // the input and the output
			t.Errorf("left are %q, %v", keys, err)
		}
	})
}

// A line whose answer is gone costs the batch no other.
func TestLineWithoutItsAnswer(t *testing.T) {
	alone(t, func(t *testing.T, r *replica, e *engine) {
		e.long()
		e.before = func(prompt string) {
			if prompt != "p4" { // the last, which begins when another has ended
				return
			}
			for number := range 5 {
				if l, err := r.s.lineResult(t.Context(), r.batch(), number); err == nil {
					r.s.drop(t.Context(), l.Body)
					return
				}
			}
			t.Error("no line has ended")
		}
		o := r.until("/v1/batches/"+r.batchOf(requests(5), "24h"), ended3)
		good, bad := r.content(o, "output_file_id"), r.content(o, "error_file_id")
		if o["status"] != "completed" || len(good) != 4 || len(bad) != 1 || !strings.Contains(bad[0], `"response":null,"error":{"code":"answer_lost"`) {
			t.Errorf("%v with %d lines and errors %q", o, len(good), bad)
		}
	})
}

// batch is the id of the only batch.
func (r *replica) batch() string {
	prefix := taskKey(kindBatch, "", "")
	keys, err := r.s.store.List(r.t.Context(), prefix, "", 2)
	if err != nil || len(keys) != 1 {
		r.t.Errorf("batches %q, %v", keys, err)
		return ""
	}
	return strings.TrimPrefix(keys[0], prefix)
}

// An answer that was kept without an answer of the store is replayed.
func TestKeyOverAVagueWrite(t *testing.T) {
	over(t, writes("swap", "idem/", `"done":true`), func(t *testing.T, r *replica, e *engine) {
		e.long()
		r.mux.Handle("POST /x", r.s.Once(e))
		const body = `{"prompt":"a"}`
		_, first := r.do("POST", "/x", body, idempotencyHeader, "k")
		<-time.After(2 * settleEvery)
		if status, text := r.do("POST", "/x", body, idempotencyHeader, "k"); status != 200 || text != first || e.runs("a") != 1 {
			t.Errorf("%d %.200s after %d runs", status, text, e.runs("a"))
		}
	})
}
