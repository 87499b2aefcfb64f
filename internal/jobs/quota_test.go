package jobs

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/store"
)

// endless is work that never ends by itself.
func endless(string, bool) http.Handler {
	return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
}

// begins sends durable work of a kind for a caller, whom a header names, and
// returns its path. A batch is of file.
func (r *replica) begins(kind, from, file string, headers ...string) (path string, w *httptest.ResponseRecorder) {
	r.t.Helper()
	body := map[string]string{
		"jobs":      `{"prompt":"p"}`,
		"responses": `{"input":"x","background":true}`,
		"batches":   fmt.Sprintf(`{"input_file_id":%q,"endpoint":"/v1/completions","completion_window":"24h"}`, file),
	}[kind]
	headers = append(headers, "From", from)
	req := httptest.NewRequestWithContext(r.t.Context(), "POST", "/v1/"+kind, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	w = httptest.NewRecorder()
	r.mux.ServeHTTP(w, req)
	if w.Code < 300 {
		path = fmt.Sprint("/v1/", kind, "/", object(r.t, w.Body.String())["id"])
	}
	return path, w
}

// A caller has so much unfinished work, whatever it is and whichever replica
// took it, and no more until some of it ends. Others have theirs.
func TestUnfinishedWorkIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, st := config(), store.NewMemory(1<<30)
		cfg.MaxJobs = 6
		here, elsewhere := newReplicaOf(t, cfg, st, "", endless), newReplicaOf(t, cfg, st, "", endless)
		for _, r := range []*replica{here, elsewhere} {
			r.mux.Handle("POST /v1/responses", r.s.Before(endless("", false)))
			defer r.end()
		}
		status, text := here.upload("batch", requests(2), "From", "ann")
		if status != 200 {
			t.Fatalf("upload: %d %s", status, text)
		}
		file, _ := object(t, text)["id"].(string)
		kinds := []string{"jobs", "responses", "batches"}
		var paths []string
		for i := range 6 {
			path, w := here.begins(kinds[i%3], "ann", file, "Idempotency-Key", fmt.Sprint("key ", i/3))
			if w.Code >= 300 {
				t.Fatalf("%s, with %d there: %d %s", kinds[i%3], i, w.Code, w.Body)
			}
			paths = append(paths, path)
		}
		refused := func(r *replica, kind, from string) {
			t.Helper()
			_, w := r.begins(kind, from, file)
			if w.Code != 429 || w.Header().Get("Retry-After") != "10" || !strings.Contains(w.Body.String(), "rate_limit_exceeded") ||
				!strings.Contains(w.Body.String(), "6 unfinished") || !strings.Contains(w.Body.String(), "--max-jobs") {
				t.Errorf("%s over the bound: %d %s", kind, w.Code, w.Body)
			}
		}
		for _, kind := range kinds {
			refused(here, kind, "ann")
			refused(elsewhere, kind, "ann")
		}
		for i, kind := range kinds {
			if path, w := here.begins(kind, "ann", file, "Idempotency-Key", "key 0"); path != paths[i] {
				t.Errorf("%s again with its key: %d %s, want %s", kind, w.Code, w.Body, paths[i])
			}
		}
		if _, w := here.begins("jobs", "ben", ""); w.Code != 202 {
			t.Errorf("another caller: %d %s", w.Code, w.Body)
		}
		here.must("POST", paths[0]+"/cancel", "", "From", "ann")
		<-time.After(countAgain)
		if _, w := here.begins("jobs", "ann", ""); w.Code != 202 {
			t.Errorf("after one was cancelled: %d %s", w.Code, w.Body)
		}
		refused(here, "jobs", "ann")
		for range 3 {
			elsewhere.begins("jobs", "ben", "")
		}
		<-time.After(countEvery)
		for range 2 {
			here.begins("jobs", "ben", "")
		}
		refused(here, "jobs", "ben") // 1 of the first, 3 of elsewhere and 2
	})
}

// A job whose webhook is yet to be delivered counts, though it has ended.
func TestUntoldJobsAreBounded(t *testing.T) {
	v := newReceiver(t, func(_ int, w http.ResponseWriter) { w.WriteHeader(http.StatusBadGateway) })
	synctest.Test(t, func(t *testing.T) {
		cfg := v.config()
		cfg.MaxJobs = 3
		r := newReplicaOf(t, cfg, store.NewMemory(1<<30), "", newEngine().chain)
		defer r.end()
		for range cfg.MaxJobs {
			r.submit(v.srv.URL)
		}
		<-time.After(countEvery + time.Minute)
		status, text := r.do("POST", "/v1/jobs", `{"url":"/v1/completions","body":{"prompt":"p"}}`)
		if status != 429 || !strings.Contains(text, "3 unfinished") || len(v.all()) < cfg.MaxJobs {
			t.Errorf("%d %s, after %d attempts to tell", status, text, len(v.all()))
		}
	})
}

// Nobody waits for another's count who has left.
func TestQuotaWithoutItsCaller(t *testing.T) {
	q := newQuota(1, store.NewMemory(1<<20))
	q.turn <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := q.take(ctx, "ann"); !errors.Is(err, context.Canceled) {
		t.Errorf("waits: %v", err)
	}
}
