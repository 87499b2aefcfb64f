package jobs

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"infer/internal/store"
)

// A batch whose input is deleted fails with all that was answered: what ran on
// from what had been read, or what a process that ended has left.
func TestBatchWithoutInputKeepsWhatItHas(t *testing.T) {
	for _, tt := range []struct {
		name  string
		stop  bool // the process ends before the input goes
		lines int
	}{{"while it runs", false, 12}, {"while nobody runs it", true, 4}} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				st, e := store.NewMemory(1<<26), newEngine()
				e.took = func() time.Duration { return 10 * time.Second }
				r := newReplica(t, st, "", e.chain)
				defer func() { r.end() }()
				id := r.batchOf(requests(12), "24h")
				<-time.After(15 * time.Second)
				if tt.stop {
					r.end()
				}
				r.must("DELETE", "/v1/files/"+r.must("GET", "/v1/batches/"+id, "")["input_file_id"].(string), "")
				if tt.stop {
					r = newReplica(t, st, "", e.chain)
				}
				o := r.until("/v1/batches/"+id, ended3)
				fault := o["errors"].(map[string]any)["data"].([]any)[0].(map[string]any)
				if o["status"] != "failed" || fault["code"] != "input_lost" || count(o, "total") != 12 || count(o, "completed") != tt.lines {
					t.Errorf("ended as %v", o)
				}
				good := r.content(o, "output_file_id")
				if len(good) != tt.lines || !strings.Contains(good[0], `"custom_id":"c0"`) || r.content(o, "error_file_id") != nil {
					t.Errorf("output %q", good)
				}
				synctest.Wait() // the results are removed behind the last word
				if left, _ := r.s.store.List(t.Context(), "line/", "", 10); len(left) != 0 {
					t.Errorf("results are left: %q", left)
				}
			})
		})
	}
}

// A window that ends when the input is gone is refused.
func TestBatchWindowEndsBeforeItsInput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := config()
		cfg.FileTTL = 24 * time.Hour
		r := newReplicaOf(t, cfg, store.NewMemory(1<<26), "", newEngine().chain)
		defer r.end()
		_, text := r.upload("batch", requests(1))
		id := object(t, text)["id"].(string)
		ask := func(window string) (int, string) {
			return r.do("POST", "/v1/batches", `{"input_file_id":"`+id+`","endpoint":"/v1/completions","completion_window":"`+window+`"}`)
		}
		if status, text := ask("24h"); status != 200 {
			t.Errorf("a window as long as files stay: %d %s", status, text)
		}
		<-time.After(23 * time.Hour)
		status, text := ask("24h")
		err, _ := object(t, text)["error"].(map[string]any)
		if status != 400 || err["param"] != "completion_window" || !strings.Contains(text, "1h30m") || !strings.Contains(text, "upload the file again") {
			t.Errorf("a window beyond the input: %d %s", status, text)
		}
		if status, text := ask("1h30m"); status != 200 {
			t.Errorf("the window that is named: %d %s", status, text)
		}
	})
}
