package vllm

import (
	"encoding/json/v2"
	"net/http"
	"strings"
	"testing"

	"infer/internal/engine"
)

// Callers' prompts are kept apart, whatever they say themselves; all else of a
// body reaches vLLM as it was sent.
func TestCacheSalt(t *testing.T) {
	r := run(t, fakeConfig(t, ""), nil)
	r.until(phase(engine.Ready))
	saw := func(caller, body string) (text, salt string) {
		t.Helper()
		req, err := http.NewRequestWithContext(engine.WithCaller(t.Context(), caller), http.MethodPost, "/v1/completions", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		var w recorder
		r.ServeHTTP(&w, req)
		var got struct {
			Salt string `json:"cache_salt"`
		}
		if err := json.Unmarshal(w.body.Bytes(), &got); err != nil {
			t.Fatalf("vLLM saw %s: %v", w.body.String(), err)
		}
		return w.body.String(), got.Salt
	}
	const plain = ` { "prompt" : "body","n":1.0,"x":"\u00e9" }`
	if text, _ := saw("", plain); text != plain {
		t.Errorf("without keys vLLM saw %s", text)
	}
	own := strings.Replace(plain, `"n"`, `"cache_salt":"s","n"`, 1)
	if text, _ := saw("", own); text != own {
		t.Errorf("without keys vLLM saw %s", text)
	}
	text, ann := saw("ann", plain)
	if want := ` {"cache_salt":"` + ann + `", "prompt" : "body","n":1.0,"x":"\u00e9" }`; text != want || len(ann) != 43 {
		t.Errorf("vLLM saw %s, want %s", text, want)
	}
	text, parted := saw("ann", own)
	if want := strings.Replace(own, `"s"`, `"`+parted+`"`, 1); text != want {
		t.Errorf("vLLM saw %s, want %s", text, want)
	}
	_, again := saw("ann", plain)
	_, bob := saw("bob", plain)
	_, stolen := saw("bob", strings.Replace(plain, `"n"`, `"cache_salt":"`+ann+`","n"`, 1))
	_, null := saw("ann", strings.Replace(plain, `"n"`, `"cache_salt":null,"n"`, 1))
	_, escaped := saw("ann", strings.Replace(plain, `"n"`, `"cache\u005fsalt":"\u0073","n"`, 1))
	_, glued := saw("an", strings.Replace(plain, `"n"`, `"cache_salt":"n","n"`, 1))
	for name, ok := range map[string]bool{
		"the same caller has the same": again == ann, "null is none": null == ann, "an escape is no way out": escaped == parted,
		"others have another": bob != ann, "nobody takes another's": stolen != ann, "a salt of one's own parts": parted != ann,
		"names and salts do not run together": glued != ann,
	} {
		if !ok {
			t.Error(name)
		}
	}
	if s := newSalt(); s.of("ann", "") == ann || newSalt().of("ann", "") == s.of("ann", "") {
		t.Error("another process has the same salt")
	}
	for _, form := range []string{"--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n{}\r\n--x--", ""} {
		if got := string(newSalt().put([]byte(form), "ann")); got != form {
			t.Errorf("a form became %q", got)
		}
	}
	if got := string(newSalt().put([]byte(` {}`), "ann")); !strings.HasPrefix(got, ` {"cache_salt":"`) || !strings.HasSuffix(got, `"}`) {
		t.Errorf("put into nothing: %s", got)
	}
}
