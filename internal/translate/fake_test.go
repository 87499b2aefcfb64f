package translate

import (
	"encoding/json/v2"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeChat is a chat handler that answers as scripted and keeps what it was asked.
type fakeChat struct {
	header http.Header
	status int
	pieces []string // each is one write and one flush
	abort  bool     // break off in the end

	path  string
	asked string
	hook  func(i int) // called after piece i was written
}

func (f *fakeChat) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(err)
	}
	f.path, f.asked = r.URL.Path, string(body)
	for k, v := range f.header {
		w.Header()[k] = v
	}
	if f.status != 0 {
		w.WriteHeader(f.status)
	}
	for i, piece := range f.pieces {
		if _, err := io.WriteString(w, piece); err != nil {
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		if f.hook != nil {
			f.hook(i)
		}
	}
	if f.abort {
		panic(http.ErrAbortHandler)
	}
}

// streaming answers with the events of a file, one write each.
func streaming(t testing.TB, name string) *fakeChat {
	t.Helper()
	text := readFile(t, "chat", name)
	f := &fakeChat{header: http.Header{"Content-Type": {"text/event-stream"}}}
	for _, event := range strings.SplitAfter(text, "\n\n") {
		if event != "" {
			f.pieces = append(f.pieces, event)
		}
	}
	return f
}

// answering answers with one JSON body.
func answering(status int, body string) *fakeChat {
	return &fakeChat{header: http.Header{"Content-Type": {"application/json"}}, status: status, pieces: []string{body}}
}

func readFile(t testing.TB, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(append([]string{"testdata"}, elem...)...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// post sends a body through a handler.
func post(h http.Handler, body string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	w.Header().Set("X-Request-Id", "req")
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/any", strings.NewReader(body)))
	return w
}

var (
	ids       = regexp.MustCompile(`"(resp|msg|rs|fc|call|toolu)_[A-Z2-7]{26}"`)
	completed = regexp.MustCompile(`"completed_at":\d+`)
)

// settled replaces what is new in each run.
func settled(s string) string {
	return completed.ReplaceAllString(ids.ReplaceAllString(s, `"${1}_ID"`), `"completed_at":0`)
}

// wantFile compares with a golden file. UPDATE_GOLDEN=1 writes it.
func wantFile(t *testing.T, got string, elem ...string) {
	t.Helper()
	name := filepath.Join(append([]string{"testdata"}, elem...)...)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(name, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if want := readFile(t, elem...); got != want {
		t.Errorf("%s:\n got\n%s\nwant\n%s", name, got, want)
	}
}

// wantJSON compares two JSON texts, whatever their order.
func wantJSON(t *testing.T, got, want string) {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("%v in %s", err, want)
	}
	a, errA := json.Marshal(g, json.Deterministic(true))
	b, errB := json.Marshal(w, json.Deterministic(true))
	if errA != nil || errB != nil || string(a) != string(b) {
		t.Errorf("got\n%s\nwant\n%s", a, b)
	}
}
