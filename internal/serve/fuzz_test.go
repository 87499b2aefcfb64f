package serve

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"infer/internal/openai"
)

// witnessed is a fixture whose engine remembers the last body.
func witnessed(t testing.TB) (f *fixture, body *[]byte) {
	body = new([]byte)
	f = newFixture(t, config(), ready(1), func(w http.ResponseWriter, r *http.Request) {
		*body, _ = io.ReadAll(r.Body)
		_, _ = io.WriteString(w, "{}")
	})
	f.fake.media = true
	return f, body
}

// FuzzBody sends bodies through all that stands before the engine: none is our
// fault, and what the engine gets is what was sent. Responses and messages are
// translated, so that there only the answers count.
func FuzzBody(f *testing.F) {
	paths := []string{chatPath, completions, responses, anthropic, anthropic + "/count_tokens", "/v1/embeddings", "/v1/rerank", "/v1/score", "/classify", "/tokenize", "/detokenize"}
	for i, path := range paths {
		f.Add(byte(i), []byte(wrap(path, `"n":2,"stop":["a"],"logit_bias":{"1":1},"user":"u","metadata":{"a":"b"}`)))
	}
	for _, seed := range []string{
		`{"model":"small","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,iVBORw0KGgo="},"uuid":null},{"type":"text","text":"\ud83d\ude00"}]}],"chat_template_kwargs":{"thinking":true}}`,
		`{"model":"small","input":[{"role":"user","content":[{"type":"input_image","image_url":"https://a/b"}]}],"text":{"format":{"type":"json_schema","name":"a","schema":{"pattern":"a"}}},"tools":[{"type":"function","name":"f","parameters":{}}]}`,
		`{"model":"small","max_tokens":9,"messages":[{"role":"user","content":[{"type":"tool_result","tool_use_id":"a","content":[{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}]}]}],"tools":[{"name":"f","input_schema":{"type":"object"}}]}`,
		`{"prompt":[[1,2],[3]],"best_of":1e1,"prompt_logprobs":null,"structured_outputs":{"json":"{}"},"priority":0}`,
		`{"query":"q","documents":[{"content":[{"input_audio":{"format":"wav","data":"UklGRg=="}}]}],"\u0075ser":1}`,
	} {
		for i := range paths {
			f.Add(byte(i), []byte(seed))
		}
	}
	srv, got := witnessed(f)
	f.Fuzz(func(t *testing.T, route byte, body []byte) {
		path := paths[int(route)%len(paths)]
		*got = nil
		w := srv.do("POST", path, string(body))
		switch {
		case w.Code == http.StatusInternalServerError:
			t.Fatalf("%s: %d %s", path, w.Code, w.Body)
		case w.Code == http.StatusOK:
			if path != responses && path != anthropic && path != anthropic+"/count_tokens" && !bytes.Equal(*got, body) {
				t.Errorf("%s: the engine got %q", path, *got)
			}
		case *got != nil && path != responses && path != anthropic && path != anthropic+"/count_tokens":
			t.Errorf("%s: refused with %d, but the engine got %q", path, w.Code, *got)
		}
		if _, e := openai.Peek(body); e != nil && w.Code < 400 {
			t.Errorf("%s: %d for what is no body: %v", path, w.Code, e)
		}
	})
}

// FuzzHead sends whatever net/http takes for a request.
func FuzzHead(f *testing.F) {
	for _, seed := range []string{
		post + "Content-Length: 17\r\n\r\n" + small, post + "Transfer-Encoding: chunked\r\n\r\n" + chunks, last,
		post + "X-Request-Timeout: 1e-3\r\nX-Request-Id: \xff\r\nContent-Length: 17\r\nContent-Type: application/json; charset=\"utf-8\r\n\r\n" + small,
		post + "Expect: 100-continue\r\nAuthorization: Bearer a b\r\nX-Api-Key: \x7f\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
		"GET /v1/models/a%2Fb%00?x=%zz HTTP/1.0\r\nAccept-Encoding: gzip;q=0\r\nAccept: application/openmetrics-text\r\n\r\n",
		"HEAD /metrics HTTP/1.1\r\nHost: \r\nTraceparent: 00-\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", "CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	srv, got := witnessed(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return
		}
		*got = nil
		w := httptest.NewRecorder()
		srv.Handler().ServeHTTP(w, r)
		if w.Code == http.StatusInternalServerError || w.Header().Get("X-Request-Id") == "" {
			t.Fatalf("%d %s %v", w.Code, w.Body, w.Header())
		}
		for name, values := range w.Header() {
			for _, v := range values {
				if bytes.ContainsAny([]byte(name+v), "\r\n\x00") {
					t.Errorf("header %q: %q", name, v)
				}
			}
		}
	})
}
