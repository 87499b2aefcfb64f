package jobs

import (
	"context"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/store"
)

// moments are when something happened.
type moments struct {
	mu sync.Mutex
	at []time.Time
}

func (m *moments) now() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = append(m.at, time.Now())
}

func (m *moments) all() []time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.at)
}

// loggedStore notes when logs are written.
type loggedStore struct {
	store.Store
	written moments
}

func (l *loggedStore) Create(ctx context.Context, key string, v []byte, ttl time.Duration) error {
	if strings.HasPrefix(key, "log/") {
		l.written.now()
	}
	return l.Store.Create(ctx, key, v, ttl)
}

// reader is a client that notes when it gets something.
type reader struct {
	*httptest.ResponseRecorder
	got moments
}

func (r *reader) Write(p []byte) (int, error) {
	r.got.now()
	return r.ResponseRecorder.Write(p)
}

// follows reads the events of a response from the first on, until ctx ends.
func (r *replica) follows(ctx context.Context, method, path, body string) *reader {
	w := &reader{ResponseRecorder: httptest.NewRecorder()}
	r.mux.ServeHTTP(w, httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body)))
	return w
}

// Whoever follows a response that runs in the same process gets its events when
// they are written, not when it would look next. What another process writes it
// finds by looking.
func TestFollowerIsCalled(t *testing.T) {
	for name, elsewhere := range map[string]bool{"the same process": false, "another process": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, st := &talker{words: 20}, &loggedStore{Store: store.NewMemory(1 << 30)}
				runs := talking(t, st, e)
				defer runs.end()
				ctx, cancel := context.WithCancel(t.Context())
				time.AfterFunc(100*time.Millisecond, cancel) // so that the follower looks at other moments than the run writes
				first := runs.follows(ctx, "POST", "/v1/responses", `{"input":"x","background":true,"stream":true}`).Body.String()
				id := object(t, strings.TrimPrefix(strings.Split(first, "\n")[1], "data: "))["response"].(map[string]any)["id"].(string)
				from := runs
				if elsewhere {
					from = talking(t, st, &talker{})
					defer from.end()
				}
				w := from.follows(t.Context(), "GET", "/v1/responses/"+id+"?stream=true", "")
				all, late := events(t, w.Body.String()), time.Duration(0)
				inOrder(t, all, 0)
				written := st.written.all()
				for _, at := range w.got.all() {
					if i, found := slices.BinarySearchFunc(written, at, time.Time.Compare); !found && i > 0 { // 0: created and queued
						late = max(late, at.Sub(written[i-1]))
					}
				}
				if !elsewhere && late > 0 || elsewhere && (late == 0 || late > tailPause) {
					t.Errorf("events came up to %v after they were written", late)
				}
				if len(written) < e.words || strings.Count(text(all), "w") != e.words || len(from.s.followers.calls) != 0 {
					t.Errorf("%d writes, %d followers are left; said %q", len(written), len(from.s.followers.calls), text(all))
				}
			})
		})
	}
}

// slowEnd is a store that takes its time to write the end of a task.
type slowEnd struct{ store.Store }

func (s slowEnd) Swap(ctx context.Context, key, rev string, v []byte, ttl time.Duration) error {
	if strings.Contains(string(v), `"state":"ended"`) {
		<-time.After(700 * time.Millisecond)
	}
	return s.Store.Swap(ctx, key, rev, v, ttl)
}

// Who has read the last event finds the response as that says, wherever he
// reads and asks; also when it was cancelled.
func TestResponseHasEndedWithItsStream(t *testing.T) {
	for name, cancels := range map[string]bool{"completed": false, "cancelled": true} {
		for where, elsewhere := range map[string]bool{"the same process": false, "another process": true} {
			t.Run(name+" in "+where, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					st := slowEnd{store.NewMemory(1 << 30)}
					from := talking(t, st, &talker{words: 20})
					defer from.end()
					ctx, cancel := context.WithCancel(t.Context())
					time.AfterFunc(100*time.Millisecond, cancel)
					first := from.follows(ctx, "POST", "/v1/responses", `{"input":"x","background":true,"stream":true}`).Body.String()
					path := "/v1/responses/" + object(t, strings.TrimPrefix(strings.Split(first, "\n")[1], "data: "))["response"].(map[string]any)["id"].(string)
					var wg sync.WaitGroup
					defer wg.Wait()
					if cancels {
						runs := from
						wg.Go(func() {
							<-time.After(5 * time.Second)
							runs.must("POST", path+"/cancel", "")
						})
					}
					if elsewhere {
						from = talking(t, st, &talker{})
						defer from.end()
					}
					all := events(t, from.follows(t.Context(), "GET", path+"?stream=true", "").Body.String())
					inOrder(t, all, 0)
					if end := all[len(all)-1].Response.Status; end != name || from.must("GET", path, "")["status"] != end {
						t.Errorf("after an end of %s: %v", end, from.must("GET", path, "")["status"])
					}
				})
			})
		}
	}
}

// Who follows what is deleted is let go at once.
func TestFollowerOfWhatIsDeleted(t *testing.T) {
	chats(t, func(t *testing.T, r *replica, e *talker) {
		e.words = 1000
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		first := r.follows(ctx, "POST", "/v1/responses", `{"input":"x","background":true,"stream":true}`).Body.String()
		id := object(t, strings.TrimPrefix(strings.Split(first, "\n")[1], "data: "))["response"].(map[string]any)["id"].(string)
		left := make(chan time.Time)
		go func() {
			r.follows(t.Context(), "GET", "/v1/responses/"+id+"?stream=true", "")
			left <- time.Now()
		}()
		<-time.After(10*time.Second + 17*time.Millisecond)
		deleted := time.Now()
		r.must("DELETE", "/v1/responses/"+id, "")
		if at := <-left; !at.Equal(deleted) {
			t.Errorf("let go after %v", at.Sub(deleted))
		}
	})
}
