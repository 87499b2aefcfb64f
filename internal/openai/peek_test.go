package openai

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

func TestPeek(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       Request
	}{
		{"all fields", `{"model":"m","stream":true,"stream_options":{"include_usage":true}}`, Request{Model: "m", Stream: true, IncludeUsage: true}},
		{"none", ` {} `, Request{}},
		{"nulls count as absent", `{"model":null,"stream":null,"stream_options":null}`, Request{}},
		{"a null option", `{"model":"m","stream_options":{"include_usage":null,"x":[1]}}`, Request{Model: "m"}},
		{"escaped name and value", `{"\u006dodel":"Qwen\/Qwen3"}`, Request{Model: "Qwen/Qwen3"}},
		{"same name deeper", `{"metadata":{"model":"x","stream":1},"model":"m"}`, Request{Model: "m"}},
		{"as deep as allowed", `{"a":` + strings.Repeat("[", 63) + strings.Repeat("]", 63) + `,"model":"m"}`, Request{Model: "m"}},
		{"brackets in strings", `{"model":"m","a":"` + strings.Repeat(`[{\"`, 100) + `\\","b":"[{"}`, Request{Model: "m"}},
		{"many but flat", `{"a":[` + strings.Repeat(`{"b":"\\"},`, 100) + `{}],"model":"m"}`, Request{Model: "m"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Peek([]byte(tt.body))
			if err != nil {
				t.Fatalf("Peek() = %v", err)
			}
			got.Members = nil
			tt.want.N, tt.want.Prompts = max(tt.want.N, 1), max(tt.want.Prompts, 1)
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Peek() = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestPeekSizes(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		want       Request
	}{
		{"chat", `{"messages":[{"role":"user","content":"` + strings.Repeat("word ", 80) + `"}],"max_tokens":7,"n":3}`, Request{PromptTokens: 107, MaxTokens: 7, N: 3}},
		{"the newer name", `{"max_completion_tokens":9,"max_tokens":null}`, Request{MaxTokens: 9}},
		{"responses", `{"input":"abcdefgh","instructions":"abcd","max_output_tokens":1e2}`, Request{PromptTokens: 3, MaxTokens: 100}},
		{"prompts", `{"prompt":["abcdef","abcdef"],"best_of":4}`, Request{PromptTokens: 4, N: 4, Prompts: 2}},
		{"ids", `{"prompt":[1, 2, 3]}`, Request{PromptTokens: 3}},
		{"prompts of ids", `{"prompt":[[1,2],[3]]}`, Request{PromptTokens: 3, Prompts: 2}},
		{"rerank", `{"query":"abcd","documents":["abcdef","ab","ab"]}`, Request{PromptTokens: 6, Prompts: 3}},
		{"what is no prompt", `{"metadata":{"a":"` + strings.Repeat("x", 999) + `"},"user":"u"}`, Request{}},
		{"no counts", `{"n":"3","best_of":-2,"max_tokens":1.5,"prompt":[]}`, Request{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Peek([]byte(tt.body))
			if err != nil {
				t.Fatalf("Peek() = %v", err)
			}
			got.Members = nil
			tt.want.N, tt.want.Prompts = max(tt.want.N, 1), max(tt.want.Prompts, 1)
			if tt.name == "no counts" {
				got.PromptTokens = 0
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("Peek() = %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestPeekRefuses(t *testing.T) {
	deep := func(n int) string { return `{"a":` + strings.Repeat("[", n) + strings.Repeat("]", n) + `}` }
	for _, tt := range []struct{ name, body, code, param, message string }{
		{"empty", "", CodeInvalidJSON, "", "the body is not valid JSON: empty; send one JSON object"},
		{"blank", " \n", CodeInvalidJSON, "", "the body is not valid JSON: empty; send one JSON object"},
		{"cut", `{"model":"m"`, CodeInvalidJSON, "", "the body is not valid JSON: ends too early at offset 12; send one JSON object"},
		{"cut in a value", `{"model":"m","a":[1,`, CodeInvalidJSON, "", "the body is not valid JSON: ends too early at offset 20; send one JSON object"},
		{"not JSON", `model=m`, CodeInvalidJSON, "", "the body is not valid JSON: invalid character 'm' at start of value at offset 0; send one JSON object"},
		{"array", `[{}]`, CodeInvalidJSON, "", "the body is JSON but not an object; send one JSON object"},
		{"trailing comma", `{"a":1,}`, CodeInvalidJSON, "", "the body is not valid JSON: invalid character ',' at start of value at offset 6; send one JSON object"},
		{"trailing object", `{"model":"m"} {}`, CodeInvalidJSON, "", "the body goes on after its JSON object at offset 13; send one JSON object"},
		{"trailing junk", `{"model":"m"}x`, CodeInvalidJSON, "", "the body is not valid JSON: invalid character 'x' at start of value at offset 13; send one JSON object"},
		{"duplicate", `{"model":"m","model":"n"}`, CodeInvalidJSON, "", "the body is not valid JSON: repeats a member name at offset 13; send one JSON object"},
		{"duplicate deeper", `{"a":[{"b":1,"\u0062":2}]}`, CodeInvalidJSON, "", "the body is not valid JSON: repeats a member name at offset 13; send one JSON object"},
		{"duplicate option", `{"stream_options":{"x":1,"x":2}}`, CodeInvalidJSON, "", "the body is not valid JSON: repeats a member name at offset 25; send one JSON object"},
		{"bad UTF-8", "{\"a\":\"\xff\"}", CodeInvalidJSON, "", "the body is not valid JSON: invalid UTF-8 at offset 6; send one JSON object"},
		{"half a surrogate", `{"a":"\ud800"}`, CodeInvalidJSON, "", "the body is not valid JSON: invalid surrogate pair `\\ud800\"}` in string at offset 6; send one JSON object"},
		{"too deep", deep(64), CodeInvalidJSON, "", "the body nests deeper than 64 levels at offset 68; flatten it"},
		{"far too deep", deep(20000), CodeInvalidJSON, "", "the body is not valid JSON: exceeded max depth at offset 10004; send one JSON object"},
		{"model a number", `{"model":7}`, CodeInvalidValue, "model", "model must be a string, got a number"},
		{"model empty", `{"model":""}`, CodeInvalidValue, "model", "model must not be empty"},
		{"stream a string", `{"stream":"true"}`, CodeInvalidValue, "stream", "stream must be true or false, got a string"},
		{"stream an object", `{"stream":{}}`, CodeInvalidValue, "stream", "stream must be true or false, got an object"},
		{"options an array", `{"stream_options":[]}`, CodeInvalidValue, "stream_options", "stream_options must be an object, got an array"},
		{"usage a number", `{"stream_options":{"include_usage":1}}`, CodeInvalidValue, "stream_options.include_usage",
			"stream_options.include_usage must be true or false, got a number"},
		{"the first fault counts", `{"model":true,"stream":1}`, CodeInvalidValue, "model", "model must be a string, got a boolean"},
		{"broken syntax counts more", `{"model":true,"stream":}`, CodeInvalidJSON, "", "the body is not valid JSON: invalid character '}' at start of value at offset 23; send one JSON object"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Peek([]byte(tt.body))
			if err == nil {
				t.Fatal("Peek() accepts it")
			}
			if err.Status != http.StatusBadRequest || err.Type != TypeInvalidRequest || err.Code != tt.code || err.Param != tt.param {
				t.Errorf("Peek() = %+v, want 400 %s %q", err, tt.code, tt.param)
			}
			if err.Message != tt.message {
				t.Errorf("message\n got %s\nwant %s", err.Message, tt.message)
			}
		})
	}
}

// FuzzPeek holds Peek against encoding/json: what Peek accepts is an object
// with the same fields there, and what is not even JSON there is refused.
func FuzzPeek(f *testing.F) {
	for _, seed := range []string{
		`{"model":"m","stream":true,"stream_options":{"include_usage":true}}`, `{}`, `[]`, `{"model":null}`,
		`{"model":"m"}x`, `{"a":"\ud800"}`, "{\"a\":\"\xff\"}", `{"a":[{"b":"]\\"}]}`, `{"model":7}`, `{"stream_options":{"x":{}}}`,
		`{"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		kept := string(body)
		got, err := Peek(body)
		if string(body) != kept {
			t.Fatal("Peek changed the body")
		}
		if err != nil {
			if err.Status != http.StatusBadRequest || err.Message == "" || len(err.Message) > 300 {
				t.Errorf("Peek() = %+v, want a short 400", err)
			}
			return
		}
		var want struct {
			Model   string `json:"model"`
			Stream  bool   `json:"stream"`
			Options struct {
				Usage bool `json:"include_usage"`
			} `json:"stream_options"`
		}
		// The old package matches names in any case; ask it about exact names only.
		var exact map[string]json.RawMessage
		if err := json.Unmarshal(body, &exact); err != nil {
			t.Fatalf("Peek accepts what is no JSON object: %v", err)
		}
		for name := range exact {
			if name != "model" && name != "stream" && name != "stream_options" {
				delete(exact, name)
			}
		}
		b, _ := json.Marshal(exact)
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatalf("Peek accepts wrong types: %v", err)
		}
		if got.Model != want.Model || got.Stream != want.Stream {
			t.Errorf("Peek() = %+v, want %+v", got, want)
		}
	})
}

func BenchmarkPeek(b *testing.B) {
	text := strings.Repeat("The quick brown fox says \\\"hello\\\".\\n", 1<<20/36)
	many := strings.Repeat(`{"role":"user","content":"A short question of the usual size?"},`, 1<<20/64)
	for _, bb := range []struct{ name, body string }{
		{"2KB", `{"model":"m","messages":[{"role":"user","content":"` + text[:2160] + `"}],"stream":true}`},
		{"1MB", `{"model":"m","messages":[{"role":"user","content":"` + text + `"}],"stream":true}`},
		{"1MB-messages", `{"model":"m","messages":[` + many + `{}],"stream":true}`},
		{"1MB-numbers", `{"model":"m","prompt":[[` + strings.Repeat("12345,", 1<<20/6) + `1]],"stream":true}`},
	} {
		b.Run(bb.name, func(b *testing.B) {
			body := []byte(bb.body)
			b.SetBytes(int64(len(body)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Peek(body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
