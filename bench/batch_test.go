package main

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// A batch is over when all its lines are answered, and something may happen
// while it runs; one that fails, or lacks a line, counts for nothing.
func TestBatch(t *testing.T) {
	var answers []string
	polls := 0
	s := fakeServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/files":
			body, err := io.ReadAll(r.Body)
			if err != nil || strings.Count(string(body), `"custom_id"`) != 2 {
				t.Errorf("uploaded %s, %v", body, err)
			}
			_, _ = io.WriteString(w, `{"id":"file-1"}`) // the client may have left
		case r.Method == "POST":
			_, _ = io.WriteString(w, `{"id":"b","status":"validating"}`)
		default:
			_, _ = io.WriteString(w, answers[min(polls, len(answers)-1)])
			polls++
		}
	})
	state := func(status string, n int) string {
		return fmt.Sprintf(`{"id":"b","status":%q,"request_counts":{"completed":%d}}`, status, n)
	}
	for _, c := range []struct {
		answers []string
		called  int
		ok      bool
	}{
		{[]string{state("in_progress", 0), state("in_progress", 1), state("in_progress", 2), state("completed", 2)}, 1, true},
		{[]string{state("failed", 0)}, 0, false},
		{[]string{state("completed", 1)}, 0, false},
	} {
		polls, answers = 0, c.answers
		called := 0
		took, err := s.batch(t.Context(), [][]int32{{1}, {2}}, func() error { called++; return nil })
		if called != c.called || (err == nil) != c.ok || c.ok && took <= 0 {
			t.Errorf("%q: called %d times, %v, %v", c.answers, called, took, err)
		}
	}
}
