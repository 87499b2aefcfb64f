package jobs

import (
	"context"
	"errors"
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

// alone runs test with one process over a memory, on a fake clock.
func alone(t *testing.T, test func(t *testing.T, r *replica, e *engine)) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		r := newReplica(t, store.NewMemory(1<<30), "", e.chain)
		defer r.end()
		test(t, r, e)
	})
}

func TestJobIsAnswered(t *testing.T) {
	alone(t, func(t *testing.T, r *replica, e *engine) {
		o := r.must("POST", "/v1/jobs", `{"url":"/v1/completions","body":{"prompt":"a"},"metadata":{"k":"v"}}`)
		if o["object"] != "job" || o["status"] != "queued" && o["status"] != "in_progress" {
			t.Errorf("accepted as %v", o)
		}
		plain := r.must("POST", "/v1/jobs", `{"prompt":"b"}`)
		path := "/v1/jobs/" + o["id"].(string)
		o = r.until(path, ended3)
		resp := o["response"].(map[string]any)
		if o["status"] != "succeeded" || resp["status_code"] != 200.0 || resp["request_id"] != "req-a" ||
			resp["body"].(map[string]any)["text"] != "re: a" || o["metadata"].(map[string]any)["k"] != "v" {
			t.Errorf("ended as %v", o)
		}
		if o := r.until("/v1/jobs/"+plain["id"].(string), ended3); o["url"] != "/v1/completions" || o["status"] != "succeeded" {
			t.Errorf("plain body ended as %v", o)
		}
		if status, _ := r.do("GET", path, "", "From", "somebody else"); status != 404 {
			t.Errorf("another caller sees the job: %d", status)
		}
		l := r.must("GET", "/v1/jobs?limit=1", "")
		if data := l["data"].([]any); len(data) != 1 || l["has_more"] != true {
			t.Errorf("first page %v", l)
		}
		l = r.must("GET", "/v1/jobs?limit=1&after="+l["last_id"].(string), "")
		if data := l["data"].([]any); len(data) != 1 || l["has_more"] != false {
			t.Errorf("second page %v", l)
		}
		<-time.After(config().ResultTTL)
		if status, _ := r.do("GET", path, ""); status != 404 {
			t.Errorf("the job outlives its time: %d", status)
		}
	})
}

// What the server cannot take now, and what the engine fails on, is tried again;
// a request at fault is not.
func TestJobIsTriedAgain(t *testing.T) {
	for _, tt := range []struct {
		name         string
		status, want int
		times, runs  int
		outcome      string
	}{
		{"busy", 429, 200, 7, 8, "succeeded"}, {"starting", 503, 200, 7, 8, "succeeded"},
		{"broken once", 502, 200, 1, 2, "succeeded"}, {"broken", 500, 500, 100, 3, "failed"}, {"at fault", 400, 400, 100, 1, "failed"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			alone(t, func(t *testing.T, r *replica, e *engine) {
				e.reply = func(w http.ResponseWriter, prompt string) bool {
					if e.runs(prompt) > tt.times {
						return false
					}
					w.Header().Set("Retry-After", "3")
					openai.WriteError(w, &openai.Error{Status: tt.status, Type: openai.TypeServer, Code: openai.CodeInternal, Message: "no"})
					return true
				}
				o := r.must("POST", "/v1/jobs", `{"prompt":"a"}`)
				o = r.until("/v1/jobs/"+o["id"].(string), ended3)
				if got := o["response"].(map[string]any)["status_code"]; got != float64(tt.want) || o["status"] != tt.outcome || e.runs("a") != tt.runs {
					t.Errorf("%v after %d runs; want %d, %s after %d", o, e.runs("a"), tt.want, tt.outcome, tt.runs)
				}
			})
		})
	}
}

func TestJobIsCancelled(t *testing.T) {
	alone(t, func(t *testing.T, r *replica, e *engine) {
		e.took = func() time.Duration { return time.Hour }
		id := r.must("POST", "/v1/jobs", `{"prompt":"a"}`)["id"].(string)
		r.until("/v1/jobs/"+id, func(o map[string]any) bool { return o["status"] == "in_progress" })
		if o := r.must("POST", "/v1/jobs/"+id+"/cancel", ""); o["status"] != "cancelled" {
			t.Errorf("cancelled as %v", o)
		}
		synctest.Wait()
		if n := len(r.s.tasks); n != 0 {
			t.Errorf("%d tasks still run", n)
		}
		if o := r.must("POST", "/v1/jobs/"+id+"/cancel", ""); o["status"] != "cancelled" {
			t.Errorf("cancelled again as %v", o)
		}
	})
}

func TestJobExpires(t *testing.T) {
	alone(t, func(t *testing.T, r *replica, e *engine) {
		e.took = func() time.Duration { return 100 * time.Hour }
		id := r.must("POST", "/v1/jobs", `{"prompt":"a"}`)["id"].(string)
		<-time.After(config().Deadline + time.Minute)
		if o := r.must("GET", "/v1/jobs/"+id, ""); o["status"] != "failed" || o["error"].(map[string]any)["code"] != "job_expired" {
			t.Errorf("ended as %v", o)
		}
	})
}

// A process that stops hands its work back, and the next goes on at once.
func TestStopHandsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, e := store.NewMemory(1<<30), newEngine()
		e.took = func() time.Duration { return 10 * time.Second }
		r := newReplica(t, st, "", e.chain)
		id := r.must("POST", "/v1/jobs", `{"prompt":"a"}`)["id"].(string)
		<-time.After(time.Second)
		r.end()
		began := time.Now()
		next := newReplica(t, st, "", e.chain)
		defer next.end()
		next.until("/v1/jobs/"+id, ended3)
		if took := time.Since(began); took > 12*time.Second {
			t.Errorf("the next process ended the job after %v", took)
		}
	})
}

func TestBadJobs(t *testing.T) {
	alone(t, func(t *testing.T, r *replica, e *engine) {
		for _, tt := range []struct{ body, code, param string }{
			{`[]`, "invalid_json", ""}, {`{"input":"a"}`, "missing_field", "url"},
			{`{"url":"/v1/models","body":{}}`, "invalid_value", "url"}, {`{"url":"/v1/completions"}`, "missing_field", "body"},
			{`{"url":"/v1/completions","body":{"prompt":"a","stream":true}}`, "invalid_value", "body.stream"},
			{`{"url":"/v1/completions","body":[1]}`, "invalid_json", ""}, {`{"url":"/v1/completions","body":{},"webhok":"x"}`, "unsupported_parameter", "webhok"},
			{`{"url":1,"body":{}}`, "invalid_value", "url"}, {`{"url":"/v1/responses","body":{"background":true}}`, "invalid_value", "body.background"},
		} {
			status, text := r.do("POST", "/v1/jobs", tt.body)
			err, _ := object(t, text)["error"].(map[string]any)
			param, _ := err["param"].(string)
			if status != 400 || err["code"] != tt.code || param != tt.param {
				t.Errorf("%s: %d %s; want %s about %q", tt.body, status, text, tt.code, tt.param)
			}
		}
		for _, path := range []string{"/v1/jobs/job_nope", "/v1/jobs/a%7C%7Cb", "/v1/batches/batch_nope", "/v1/files/file-nope", "/v1/files/file-nope/content"} {
			if status, text := r.do("GET", path, ""); status != 404 || !strings.Contains(text, `"not_found"`) {
				t.Errorf("GET %s: %d %s", path, status, text)
			}
		}
		r.must("POST", "/v1/jobs", `{"prompt":"a"}`, idempotencyHeader, "k")
		if status, text := r.do("POST", "/v1/jobs", `{"prompt":"b"}`, idempotencyHeader, "k"); status != 409 || !strings.Contains(text, "idempotency_key_reused") {
			t.Errorf("key with another body: %d %s", status, text)
		}
		if o := r.must("POST", "/v1/jobs", `{"prompt":"b"}`, idempotencyHeader, "k", "From", "somebody else"); o["id"] == nil {
			t.Errorf("another caller's key: %v", o)
		}
	})
}

func TestFullStoreIsSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		r := newReplica(t, store.NewMemory(100), "", e.chain)
		defer r.end()
		if status, text := r.do("POST", "/v1/jobs", `{"prompt":"a"}`); status != 503 || !strings.Contains(text, "store is full") || !strings.Contains(text, "store_unavailable") {
			t.Errorf("%d %s", status, text)
		}
		if status, text := r.upload("batch", requests(20)); status != 503 || !strings.Contains(text, "store is full") {
			t.Errorf("%d %s", status, text)
		}
	})
}

func TestFiles(t *testing.T) {
	for name, dir := range map[string]string{"in the store": "", "in a folder": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			r := newReplica(t, store.NewMemory(1<<30), dir, newEngine().chain)
			defer r.end()
			text := requests(40_000) // several pieces
			status, body := r.upload("batch", text)
			if status != 200 {
				t.Fatalf("upload: %d %s", status, body)
			}
			f := object(t, body)
			path := "/v1/files/" + f["id"].(string)
			if f["bytes"] != float64(len(text)) || f["filename"] != "in.jsonl" || f["purpose"] != "batch" || f["status"] != "processed" {
				t.Errorf("uploaded as %v", f)
			}
			if _, got := r.do("GET", path+"/content", ""); got != text {
				t.Errorf("%d bytes came back of %d, or others", len(got), len(text))
			}
			if o := r.must("GET", path, ""); fmt.Sprint(o) != fmt.Sprint(f) {
				t.Errorf("read as %v, uploaded as %v", o, f)
			}
			if status, _ := r.do("GET", path, "", "From", "somebody else"); status != 404 {
				t.Errorf("another caller sees the file: %d", status)
			}
			if l := r.must("GET", "/v1/files?purpose=batch&order=asc", ""); len(l["data"].([]any)) != 1 {
				t.Errorf("listed %v", l)
			}
			if l := r.must("GET", "/v1/files?purpose=batch_output", ""); len(l["data"].([]any)) != 0 {
				t.Errorf("listed %v", l)
			}
			if o := r.must("DELETE", path, ""); o["deleted"] != true {
				t.Errorf("deleted as %v", o)
			}
			if status, _ := r.do("GET", path+"/content", ""); status != 404 {
				t.Errorf("a deleted file is there: %d", status)
			}
			for purpose, text := range map[string]string{"fine-tune": "x", "": "x", "batch": ""} {
				if status, body := r.upload(purpose, text); status != 400 || !strings.Contains(body, `"error"`) {
					t.Errorf("purpose %q: %d %s", purpose, status, body)
				}
			}
			if status, body := r.do("POST", "/v1/files", "{}", "Content-Type", "application/json"); status != 415 {
				t.Errorf("no form: %d %s", status, body)
			}
		})
	}
}

// away is a store whose contents cannot be read for a while, or are gone.
type away struct {
	store.Store
	reads atomic.Int32 // that fail still
	err   error
}

func (a *away) Get(ctx context.Context, key string) (store.Item, error) {
	if strings.HasPrefix(key, "blob/") && a.reads.Add(-1) >= 0 {
		return store.Item{}, a.err
	}
	return a.Store.Get(ctx, key)
}

// A large body that cannot be read now is no lost job; one that is gone is.
func TestJobWaitsForItsBody(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		reads      int32
		err        error
	}{
		{"away", "succeeded", 3, errors.New("the store is away")},
		{"gone", "body_lost", 1 << 30, store.ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newEngine()
				st := &away{Store: store.NewMemory(64 << 20), err: tt.err}
				st.reads.Store(tt.reads)
				r := newReplica(t, st, "", e.chain)
				defer r.end()
				o := r.must("POST", "/v1/jobs", `{"prompt":"`+strings.Repeat("x", 400<<10)+`"}`)
				o = r.until("/v1/jobs/"+o["id"].(string), ended3)
				if text := fmt.Sprint(o); !strings.Contains(text, tt.want) {
					t.Errorf("%.400s; want %s", text, tt.want)
				}
			})
		})
	}
}
