package jobs

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/openai"
	"infer/internal/store"
)

// readStore counts the reminders that are read.
type readStore struct {
	store.Store
	reminders atomic.Int64
}

func (r *readStore) Get(ctx context.Context, key string) (store.Item, error) {
	if strings.HasPrefix(key, todoPrefix) {
		r.reminders.Add(1)
	}
	return r.Store.Get(ctx, key)
}

// A long queue is not read again each time that one of it has ended, and does
// not keep a batch from beginning.
func TestBacklog(t *testing.T) {
	const jobs = 400
	synctest.Test(t, func(t *testing.T) {
		st := &readStore{Store: store.NewMemory(1 << 30)}
		r := newReplica(t, st, "", newEngine().chain)
		defer r.end()
		last := ""
		for i := range jobs {
			last = r.must("POST", "/v1/jobs", fmt.Sprintf(`{"url":"/v1/completions","body":{"prompt":"p%d"}}`, i))["id"].(string)
		}
		_, text := r.upload("batch", requests(3))
		batch := r.must("POST", "/v1/batches", fmt.Sprintf(`{"input_file_id":%q,"endpoint":"/v1/completions","completion_window":"24h"}`, object(t, text)["id"]))
		began := time.Now()
		r.until("/v1/batches/"+batch["id"].(string), ended3)
		if took := time.Since(began); took > 30*time.Second {
			t.Errorf("the batch took %v beside %d jobs", took, jobs)
		}
		r.until("/v1/jobs/"+last, ended3)
		if n := st.reminders.Load(); n > 20*jobs {
			t.Errorf("%d reminders were read for %d jobs", n, jobs)
		}
	})
}

// Nor is it read for the sake of those who are to be told of an end, however
// long none of it can begin.
func TestBacklogWithWebhooks(t *testing.T) {
	const jobs = 200
	v := newReceiver(t, fine)
	synctest.Test(t, func(t *testing.T) {
		st, e := &readStore{Store: store.NewMemory(1 << 30)}, newEngine()
		e.took = func() time.Duration { return 5 * time.Minute }
		r := newReplicaOf(t, v.config(), st, "", e.chain)
		defer r.end()
		var paths []string
		for range jobs {
			path, _ := r.submit(v.srv.URL)
			paths = append(paths, path)
		}
		for _, path := range paths {
			r.until(path, settled)
		}
		if got := len(v.all()); got != jobs {
			t.Errorf("%d of %d were told", got, jobs)
		}
		if n := st.reminders.Load(); n > 20*jobs {
			t.Errorf("%d reminders were read for %d jobs", n, jobs)
		}
	})
}

// Those who wait for a receiver that is away are not read again and again.
func TestBacklogOfWebhooks(t *testing.T) {
	const jobs = 50
	v := newReceiver(t, func(_ int, w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) })
	synctest.Test(t, func(t *testing.T) {
		st := &readStore{Store: store.NewMemory(1 << 30)}
		r := newReplicaOf(t, v.config(), st, "", newEngine().chain)
		defer r.end()
		for range jobs {
			r.submit(v.srv.URL)
		}
		<-time.After(3 * time.Hour)
		tries := len(v.all())
		if n := int(st.reminders.Load()); tries < 5*jobs || n > 10*tries {
			t.Errorf("%d reminders were read for %d attempts to tell %d jobs", n, tries, jobs)
		}
	})
}

// lookStore counts how often the queue is read from its beginning.
type lookStore struct {
	readStore
	looks atomic.Int64
}

func (l *lookStore) List(ctx context.Context, prefix, after string, limit int) ([]string, error) {
	if prefix == todoTask && after == "" {
		l.looks.Add(1)
	}
	return l.readStore.List(ctx, prefix, after, limit)
}

// A queue that waits for an engine that is not ready is left alone until then.
func TestBacklogOfABusyEngine(t *testing.T) {
	const jobs, seconds = 400, 60
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.took = func() time.Duration { return 10 * time.Millisecond }
		var asked atomic.Int64
		e.reply = func(w http.ResponseWriter, _ string) bool {
			asked.Add(1)
			w.Header().Set("Retry-After", "30")
			openai.WriteError(w, &openai.Error{Status: 503, Type: openai.TypeUnavailable, Code: openai.CodeStore, Message: "no"})
			return true
		}
		st := &lookStore{readStore: readStore{Store: store.NewMemory(1 << 30)}}
		r := newReplica(t, st, "", e.chain)
		defer r.end()
		for i := range jobs {
			r.must("POST", "/v1/jobs", fmt.Sprintf(`{"url":"/v1/completions","body":{"prompt":"p%d"}}`, i))
		}
		<-time.After(time.Minute)
		asked.Store(0)
		st.reminders.Store(0)
		st.looks.Store(0)
		<-time.After(seconds * time.Second)
		if n := st.looks.Load(); n > 5*seconds {
			t.Errorf("%d looks in %d s", n, seconds)
		}
		if runs, n := asked.Load(), st.reminders.Load(); runs < jobs || n > 3*runs {
			t.Errorf("%d reminders were read for %d runs of %d jobs", n, runs, jobs)
		}
	})
}
