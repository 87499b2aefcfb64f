package jobs

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"infer/internal/store"
)

// durable is a service over a store on the disk, whose engine takes no time.
func durable(b *testing.B) (*Service, *http.ServeMux) {
	b.Helper()
	dir := b.TempDir()
	st, err := store.OpenBolt(dir)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = st.Close() }) // the benchmark is over
	cfg := config()
	cfg.Parallel, cfg.MaxJobs = 16, 10_000 // as the flags have it
	s, err := New(cfg, st, dir, func(*http.Request) string { return "" }, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}
	e := newEngine()
	e.took = func() time.Duration { return 0 }
	mux := http.NewServeMux()
	for pattern, h := range s.Routes() {
		mux.HandleFunc(pattern, h)
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(b.Context(), e.chain) }() // ends with the benchmark's context
	b.Cleanup(func() {
		if err := <-done; err != nil {
			b.Error(err)
		}
	})
	return s, mux
}

// BenchmarkJob is a job from its request to its end, one after the other: all of
// it is overhead. p50-ms is the median.
func BenchmarkJob(b *testing.B) {
	_, mux := durable(b)
	tick := time.NewTicker(50 * time.Microsecond)
	defer tick.Stop()
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		id := ""
		for status := ""; status != "succeeded"; {
			method, path, body := "GET", "/v1/jobs/"+id, ""
			if id == "" {
				method, path, body = "POST", "/v1/jobs", `{"prompt":"a"}`
			}
			w := httptest.NewRecorder()
			mux.ServeHTTP(w, httptest.NewRequestWithContext(b.Context(), method, path, strings.NewReader(body)))
			_, rest, _ := strings.Cut(w.Body.String(), `"id":"`)
			id, rest, _ = strings.Cut(rest, `"`)
			_, rest, _ = strings.Cut(rest, `"status":"`)
			status, _, _ = strings.Cut(rest, `"`)
			<-tick.C // to look without a pause would take the processor from the job
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
}

// BenchmarkBatch is a batch of 1,000 lines from its upload to its end. us/line
// is what a line costs.
func BenchmarkBatch(b *testing.B) {
	const n = 1000
	_, mux := durable(b)
	do := func(method, path, contentType, body string) string {
		r := httptest.NewRequestWithContext(b.Context(), method, path, strings.NewReader(body))
		r.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		if w.Code >= 300 {
			b.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
		}
		return w.Body.String()
	}
	id := func(o string) string {
		_, rest, _ := strings.Cut(o, `"id":"`)
		v, _, _ := strings.Cut(rest, `"`)
		return v
	}
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	_ = w.WriteField("purpose", "batch") // a buffer takes all
	part, err := w.CreateFormFile("file", "in.jsonl")
	if err != nil {
		b.Fatal(err)
	}
	_, _ = io.WriteString(part, requests(n))
	_ = w.Close()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for b.Loop() {
		file := id(do("POST", "/v1/files", w.FormDataContentType(), form.String()))
		batch := id(do("POST", "/v1/batches", "application/json", fmt.Sprintf(`{"input_file_id":%q,"endpoint":"/v1/completions","completion_window":"24h"}`, file)))
		for !strings.Contains(do("GET", "/v1/batches/"+batch, "", ""), `"status":"completed"`) {
			<-tick.C
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "us/line")
}
