package jobs

import (
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/store"
)

// An answer that the store has no room for is computed a few times, the last
// time after a while in which room can be made, and ends as what to do.
func TestAnswerWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			name   string
			room   time.Duration // after which there is some; 0 for never
			status string
			runs   int
		}{{"for ever", 0, "failed", 3}, {"for a minute", time.Minute, "succeeded", 3}, {"for five seconds", 5 * time.Second, "succeeded", 1}} {
			st := &failing{Store: store.NewMemory(1 << 26), prefix: "blob/", err: store.ErrFull}
			st.left.Store(math.MaxInt32)
			if tt.room > 0 {
				time.AfterFunc(tt.room, func() { st.left.Store(0) })
			}
			e := newEngine()
			e.long()
			r := newReplica(t, st, "", e.chain)
			o := r.must("POST", "/v1/jobs", `{"url":"/v1/completions","body":{"prompt":"p"}}`)
			o = r.until("/v1/jobs/"+o["id"].(string), ended3)
			fault, _ := o["error"].(map[string]any)
			if failed := fault["code"] == "answer_not_kept" && strings.Contains(fault["message"].(string), "--state"); o["status"] != tt.status || e.runs("p") != tt.runs || failed != (tt.room == 0) {
				t.Errorf("full %s: %v %v after %d runs", tt.name, o["status"], fault, e.runs("p"))
			}
			r.end()
		}
	})
}

// So does a background response.
func TestResponseWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st := &failing{Store: store.NewMemory(1 << 26), prefix: "blob/", err: store.ErrFull}
		st.left.Store(math.MaxInt32)
		e := &talker{words: 3, pad: strings.Repeat("x", inlineBytes/2)}
		r := talking(t, st, e)
		defer r.end()
		o := r.must("POST", "/v1/responses", `{"input":"one","background":true}`)
		o = r.until("/v1/responses/"+o["id"].(string), ended3)
		fault, _ := o["error"].(map[string]any)
		if message, _ := fault["message"].(string); o["status"] != "failed" || e.runs() != maxFaults || !strings.Contains(message, "--state") {
			t.Errorf("%v %v after %d runs", o["status"], fault, e.runs())
		}
	})
}
