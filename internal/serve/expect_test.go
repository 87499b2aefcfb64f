package serve

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

// get asks the running server.
func (l *live) get(t *testing.T, path string) *http.Response {
	t.Helper()
	resp, err := l.client.Get("http://infer" + path)
	if err != nil {
		t.Fatalf("GET %s: %v", path, err)
	}
	_ = resp.Body.Close()
	return resp
}

// do asks the handler itself.
func (f *fixture) do(method, path, body string, extra ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(extra); i += 2 {
		req.Header.Set(extra[i], extra[i+1])
	}
	w := httptest.NewRecorder()
	f.Handler().ServeHTTP(w, req)
	return w
}

// wantMetrics compares lines of what is scraped.
func (f *fixture) wantMetrics(t *testing.T, lines ...string) {
	t.Helper()
	w := httptest.NewRecorder()
	f.MetricsHandler(f.reg).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil)) // without a key
	got := strings.Split(w.Body.String(), "\n")
	for _, want := range lines {
		if slices.Contains(got, want) {
			continue
		}
		name, _, _ := strings.Cut(want, " ")
		name, _, _ = strings.Cut(name, "{")
		t.Errorf("no line %s in\n%s", want, strings.Join(slices.DeleteFunc(slices.Clone(got), func(l string) bool {
			return !strings.HasPrefix(l, name)
		}), "\n"))
	}
}
