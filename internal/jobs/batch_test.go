package jobs

import (
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

// batchOf uploads lines and makes a batch of them.
func (r *replica) batchOf(text, window string) string {
	r.t.Helper()
	status, body := r.upload("batch", text)
	if status != 200 {
		r.t.Fatalf("upload: %d %s", status, body)
	}
	o := r.must("POST", "/v1/batches", fmt.Sprintf(`{"input_file_id":%q,"endpoint":"/v1/completions","completion_window":%q,"metadata":{"k":"v"}}`,
		object(r.t, body)["id"], window))
	if o["object"] != "batch" || o["status"] != "validating" && o["status"] != "in_progress" || o["metadata"].(map[string]any)["k"] != "v" {
		r.t.Errorf("made as %v", o)
	}
	return o["id"].(string)
}

// content returns the lines of a file that a batch names.
func (r *replica) content(o map[string]any, name string) []string {
	r.t.Helper()
	id, ok := o[name].(string)
	if !ok {
		return nil
	}
	status, text := r.do("GET", "/v1/files/"+id+"/content", "")
	if status != 200 {
		r.t.Fatalf("%s: %d %s", name, status, text)
	}
	return strings.Split(strings.TrimSpace(text), "\n")
}

func count(o map[string]any, name string) int {
	return int(o["request_counts"].(map[string]any)[name].(float64))
}

func TestBatch(t *testing.T) {
	alone(t, func(t *testing.T, r *replica, e *engine) {
		var most atomic.Int64
		e.before = func(string) {
			n := int64(len(r.s.lines))
			for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
			}
		}
		e.reply = func(w http.ResponseWriter, prompt string) bool {
			if prompt == "p3" {
				openai.WriteError(w, openai.Invalid("prompt", openai.CodeInvalidValue, "not three"))
			}
			return prompt == "p3"
		}
		id := r.batchOf(requests(10)+"\n\n", "24h")
		o := r.until("/v1/batches/"+id, ended3)
		if o["status"] != "completed" || count(o, "total") != 10 || count(o, "completed") != 9 || count(o, "failed") != 1 || o["completed_at"] == nil || o["in_progress_at"] == nil || o["finalizing_at"] == nil {
			t.Errorf("ended as %v", o)
		}
		good, bad := r.content(o, "output_file_id"), r.content(o, "error_file_id")
		if len(good) != 9 || len(bad) != 1 {
			t.Fatalf("output %q, errors %q", good, bad)
		}
		want := `"custom_id":"c0","response":{"status_code":200,"request_id":"req-p0","body":{"text":"re: p0"}},"error":null}`
		if !strings.HasSuffix(good[0], want) || !strings.HasPrefix(good[0], `{"id":"batch_req_`) {
			t.Errorf("first line %s", good[0])
		}
		if !strings.Contains(bad[0], `"custom_id":"c3","response":{"status_code":400`) || !strings.Contains(bad[0], "not three") {
			t.Errorf("error line %s", bad[0])
		}
		if n := most.Load(); n != int64(config().Parallel) {
			t.Errorf("%d lines ran at once, want %d", n, config().Parallel)
		}
		if f := r.must("GET", "/v1/files/"+o["output_file_id"].(string), ""); f["purpose"] != "batch_output" || f["filename"] != id+"_output.jsonl" {
			t.Errorf("output file %v", f)
		}
		if l := r.must("GET", "/v1/batches", ""); len(l["data"].([]any)) != 1 || l["first_id"] != id {
			t.Errorf("listed %v", l)
		}
		synctest.Wait() // the results are removed behind the last word
		if left, _ := r.s.store.List(t.Context(), "line/", "", 10); len(left) != 0 {
			t.Errorf("results are left: %q", left)
		}
	})
}

func TestBatchWithFaultyFileRunsNothing(t *testing.T) {
	line := func(id, method, url, body string) string {
		return fmt.Sprintf(`{"custom_id":%q,"method":%q,"url":%q,"body":%s}`, id, method, url, body)
	}
	sound := line("ok", "POST", "/v1/completions", `{"prompt":"a"}`)
	for _, tt := range []struct{ name, text, code, param string }{
		{"broken line", `{"custom_id":`, "invalid_json", ""},
		{"twice the same id", sound, "duplicate_custom_id", "custom_id"},
		{"no id", line("", "POST", "/v1/completions", `{"prompt":"a"}`), "missing_field", "custom_id"},
		{"another method", line("x", "GET", "/v1/completions", `{"prompt":"a"}`), "invalid_value", "method"},
		{"another route", line("x", "POST", "/v1/embeddings", `{"input":"a"}`), "invalid_value", "url"},
		{"no body", `{"custom_id":"x","method":"POST","url":"/v1/completions"}`, "missing_field", "body"},
		{"a stream", line("x", "POST", "/v1/completions", `{"prompt":"a","stream":true}`), "invalid_value", "body.stream"},
		{"unknown member", `{"custom_id":"x","method":"POST","url":"/v1/completions","body":{},"prio":1}`, "unsupported_parameter", "prio"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			alone(t, func(t *testing.T, r *replica, e *engine) {
				o := r.until("/v1/batches/"+r.batchOf(sound+"\n"+tt.text+"\n", "24h"), ended3)
				if o["status"] != "failed" || o["failed_at"] == nil || e.runs("a") != 0 {
					t.Fatalf("%v after %d runs", o, e.runs("a"))
				}
				data := o["errors"].(map[string]any)["data"].([]any)
				fault := data[0].(map[string]any)
				param, _ := fault["param"].(string)
				if len(data) != 1 || fault["code"] != tt.code || param != tt.param || fault["line"] != 2.0 {
					t.Errorf("faults %v", data)
				}
			})
		})
	}
}

func TestBadBatches(t *testing.T) {
	alone(t, func(t *testing.T, r *replica, e *engine) {
		_, body := r.upload("batch", requests(1))
		id := object(t, body)["id"].(string)
		o := r.until("/v1/batches/"+r.batchOf(requests(1), "24h"), ended3)
		for _, tt := range []struct {
			input, endpoint, window string
			status                  int
			param                   string
		}{
			{"file-nope", "/v1/completions", "24h", 404, "file_id"}, {"", "/v1/completions", "24h", 400, "input_file_id"},
			{id, "/v1/models", "24h", 400, "endpoint"}, {id, "/v1/completions", "soon", 400, "completion_window"},
			{o["output_file_id"].(string), "/v1/completions", "24h", 400, "input_file_id"},
		} {
			status, text := r.do("POST", "/v1/batches", fmt.Sprintf(`{"input_file_id":%q,"endpoint":%q,"completion_window":%q}`, tt.input, tt.endpoint, tt.window))
			if err, _ := object(t, text)["error"].(map[string]any); status != tt.status || err["param"] != tt.param {
				t.Errorf("%+v: %d %s", tt, status, text)
			}
		}
		if status, text := r.do("POST", "/v1/batches/"+o["id"].(string)+"/cancel", ""); status != 409 || !strings.Contains(text, "wrong_state") {
			t.Errorf("cancel of a completed batch: %d %s", status, text)
		}
		if status, _ := r.do("POST", "/v1/batches", fmt.Sprintf(`{"input_file_id":%q,"endpoint":"/v1/completions","completion_window":"24h"}`, id), "From", "another"); status != 404 {
			t.Errorf("another caller's file: %d", status)
		}
	})
}

// What has a result when a batch is cancelled, or runs out of time, is in the
// output; the rest is told apart.
func TestBatchEndsEarly(t *testing.T) {
	for _, tt := range []struct{ status, code, at string }{{"cancelled", "batch_cancelled", "cancelled_at"}, {"expired", "batch_expired", "expired_at"}} {
		t.Run(tt.status, func(t *testing.T) {
			alone(t, func(t *testing.T, r *replica, e *engine) {
				e.took = func() time.Duration { return 20 * time.Second }
				id := r.batchOf(requests(40), "1m10s")
				<-time.After(30 * time.Second)
				if o := r.must("GET", "/v1/batches/"+id, ""); count(o, "completed") != 4 || o["status"] != "in_progress" {
					t.Errorf("after a first round %v", o)
				}
				if tt.status == "cancelled" {
					if o := r.must("POST", "/v1/batches/"+id+"/cancel", ""); o["status"] != "cancelling" && o["status"] != "cancelled" {
						t.Errorf("cancelled as %v", o)
					}
				}
				o := r.until("/v1/batches/"+id, ended3)
				good, bad := r.content(o, "output_file_id"), r.content(o, "error_file_id")
				if o["status"] != tt.status || o[tt.at] == nil || len(good) < 4 || len(good)+len(bad) != 40 || count(o, "completed") != len(good) || count(o, "failed") != len(bad) {
					t.Errorf("%d and %d lines, %v", len(good), len(bad), o)
				}
				for _, line := range bad {
					if !strings.Contains(line, `"response":null,"error":{"code":"`+tt.code+`"`) {
						t.Errorf("line %s", line)
					}
				}
			})
		})
	}
}

// A batch can be cancelled while its file is read, or before anybody runs it,
// and by a replica that does not run it.
func TestBatchIsCancelledFromElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, e := store.NewMemory(1<<30), newEngine()
		e.took = func() time.Duration { return time.Hour }
		r, other := newReplica(t, st, "", e.chain), newReplica(t, st, "", e.chain)
		defer other.end()
		defer r.end()
		for _, pause := range []time.Duration{0, time.Minute} {
			id := r.batchOf(requests(10), "24h")
			<-time.After(pause)
			other.must("POST", "/v1/batches/"+id+"/cancel", "")
			began := time.Now()
			o := other.until("/v1/batches/"+id, ended3)
			if took := time.Since(began); o["status"] != "cancelled" || took > leaseFor || len(r.content(o, "error_file_id")) != 10 {
				t.Errorf("after %v %v", took, o)
			}
		}
	})
}

// A batch whose process has ended too often can be cancelled, and runs out of
// time, all the same.
func TestBatchOfDyingProcessesEnds(t *testing.T) {
	for _, want := range []string{"cancelled", "expired"} {
		t.Run(want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st, e := prompt{store.NewMemory(1 << 26)}, newEngine()
				e.took = func() time.Duration { return time.Hour }
				r := newReplica(t, st, "", e.chain)
				id := r.batchOf(requests(3), "1h")
				<-time.After(time.Minute)
				r.end()
				if _, err := r.s.update(t.Context(), taskKey(kindBatch, "", id), func(t *task) error {
					t.Attempts = maxAttempts
					if want == expired {
						t.Deadline = time.Now()
					}
					return nil
				}); err != nil {
					t.Fatal(err)
				}
				if want == cancelled {
					r.must("POST", "/v1/batches/"+id+"/cancel", "")
				}
				ran := e.runs("p0")
				r = newReplica(t, st, "", e.chain)
				defer r.end()
				<-time.After(time.Minute)
				if o := r.must("GET", "/v1/batches/"+id, ""); o["status"] != want || len(r.content(o, "error_file_id")) != 3 || e.runs("p0") != ran {
					t.Errorf("after %d runs, before %d: %v", e.runs("p0"), ran, o)
				}
			})
		})
	}
}
