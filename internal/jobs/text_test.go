package jobs

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

func TestClip(t *testing.T) {
	for text, want := range map[string]string{
		"short":                       "short",
		strings.Repeat("x", 65):       strings.Repeat("x", 64) + "…",
		"a" + strings.Repeat("é", 60): "a" + strings.Repeat("é", 31) + "…",
		"half\xc3":                    "half",
	} {
		if got := clip(text); got != want || !utf8.ValidString(got) {
			t.Errorf("clip(%q) = %q, want %q", text, got, want)
		}
	}
}

// A fault is told in the client's own letters, wherever they are cut.
func TestBatchWithLongNameFails(t *testing.T) {
	alone(t, func(t *testing.T, r *replica, e *engine) {
		name := "a" + strings.Repeat("é", 60)
		id := r.batchOf(`{"custom_id":"c","method":"POST","url":"/v1/completions","`+name+`":1,"body":{"prompt":"p"}}`, "1h")
		<-time.After(time.Minute)
		if o := r.must("GET", "/v1/batches/"+id, ""); o["status"] != "failed" {
			t.Errorf("the batch is %v", o)
		}
	})
}

// What cannot be written is not tried again.
func TestUnwritableTaskIsFinal(t *testing.T) {
	alone(t, func(t *testing.T, r *replica, e *engine) {
		id := r.must("POST", "/v1/jobs", `{"prompt":"p"}`)["id"].(string)
		r.until("/v1/jobs/"+id, ended3)
		synctest.Wait()
		began := time.Now()
		_, err := r.s.persist(t.Context(), taskKey(kindJob, "", id), func(t *task) error {
			t.Job.Message = "\xff"
			return nil
		})
		if took := time.Since(began); !errors.Is(err, errShape) || took != 0 {
			t.Errorf("persist() = %v after %v, want %v at once", err, took, errShape)
		}
	})
}
