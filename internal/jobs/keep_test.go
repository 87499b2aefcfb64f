package jobs

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"infer/internal/store"
	"infer/internal/translate"
)

// refusing is a store that takes nothing, for a reason of its own.
type refusing struct {
	store.Store
	err error
}

func (r refusing) Create(context.Context, string, []byte, time.Duration) error { return r.err }

// What cannot be kept is answered all the same, and says that it is not kept.
// The operator is told, once in a while, and by a metric; nothing of it stays.
func TestResponseIsAnsweredWithoutStore(t *testing.T) {
	large := strings.Repeat("x", inlineBytes)
	for name, tt := range map[string]struct {
		store  func(store.Store) store.Store
		reason string
	}{
		"full":    {func(st store.Store) store.Store { return st }, "full"},
		"failing": {func(st store.Store) store.Store { return refusing{st, errDead} }, "failed"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e, memory := &talker{words: 3}, store.NewMemory(inlineBytes+600) // room for the conversation, and not for the rest
				r := talking(t, tt.store(memory), e)
				r.end()
				var log bytes.Buffer
				r.s.log = slog.New(slog.NewTextHandler(&log, nil)) // nothing runs any more that writes to it
				for range 20 {
					if o := r.must("POST", "/v1/responses", `{"input":"`+large+`"}`); o["store"] != false || outputOf(o) != said {
						t.Fatalf("answered %v", o["output"])
					}
				}
				_, body := r.do("POST", "/v1/responses", `{"stream":true,"input":"`+large+`"}`)
				if all := events(t, body); text(all) != said || all[len(all)-1].Type != "response.completed" || !strings.Contains(body[strings.LastIndex(body, "data: "):], `"store":false`) {
					t.Errorf("streamed %s", body)
				}
				if status, body := r.do("POST", "/v1/responses", `{"background":true,"input":"`+large+`"}`); status != 503 || !strings.Contains(body, "store") {
					t.Errorf("background: %d %s", status, body)
				}
				if keys, err := memory.List(t.Context(), "blob/", "", 10); err != nil || len(keys) > 0 {
					t.Errorf("left are %q, %v", keys, err)
				}
				if n := strings.Count(log.String(), "response cannot be kept"); n != 2 || !strings.Contains(log.String(), "others=19") || !strings.Contains(log.String(), "--keep-responses=false") {
					t.Errorf("after 21 in 63s, %d warnings:\n%s", n, log.String())
				}
				want := strings.Replace(`# HELP infer_responses_not_kept_total Responses that were answered and that the store did not take, by reason.
# TYPE infer_responses_not_kept_total counter
infer_responses_not_kept_total{reason="failed"} 0
infer_responses_not_kept_total{reason="full"} 0
`, `"`+tt.reason+`"} 0`, `"`+tt.reason+`"} 21`, 1)
				if err := testutil.CollectAndCompare(r.s, strings.NewReader(want), "infer_responses_not_kept_total"); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// With --keep-responses=false what was answered at once is not there later, and
// whoever asks is told why. Background responses are.
func TestResponsesAreNotKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg, st, e := config(), store.NewMemory(1<<20), &talker{words: 3}
		cfg.Keep = false
		r := newReplicaOf(t, cfg, st, "", e.chain)
		r.mux.Handle("POST /v1/responses", r.s.Before(translate.Responses(e)))
		defer r.end()
		o := r.must("POST", "/v1/responses", `{"input":"one","store":true}`)
		if o["store"] != false || outputOf(o) != said {
			t.Errorf("answered %v", o)
		}
		if keys, err := st.List(t.Context(), "task/", "", 10); err != nil || len(keys) > 0 {
			t.Errorf("kept %q, %v", keys, err)
		}
		id := o["id"].(string)
		for _, ask := range []struct {
			method, path, body string
			status             int
		}{
			{"GET", "/" + id, "", 404},
			{"DELETE", "/" + id, "", 404},
			{"GET", "/" + id + "/input_items", "", 404},
			{"POST", "", `{"input":"two","previous_response_id":"` + id + `"}`, 400},
		} {
			if status, body := r.do(ask.method, "/v1/responses"+ask.path, ask.body); status != ask.status || !strings.Contains(body, "--keep-responses=false") {
				t.Errorf("%s %s: %d %s", ask.method, ask.path, status, body)
			}
		}
		later := r.must("POST", "/v1/responses", `{"input":"one","background":true}`)["id"].(string)
		if o := r.until("/v1/responses/"+later, ended3); o["store"] != true || outputOf(o) != said {
			t.Errorf("in the background: %v", o)
		}
		r.must("POST", "/v1/responses", `{"input":"two","previous_response_id":"`+later+`"}`)
		if want := "user: one\nassistant: " + said + "\nuser: two"; e.last() != want {
			t.Errorf("the model was asked %q, want %q", e.last(), want)
		}
	})
}
