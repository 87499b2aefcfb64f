package vllm

import (
	"bytes"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// through feeds a transcript in pieces and returns what the client gets.
func through(t testing.TB, s *stream, pieces ...[]byte) []byte {
	t.Helper()
	var got []byte
	for _, p := range pieces {
		var err error
		if got, err = s.feed(got, p); err != nil {
			t.Fatal(err)
		}
	}
	s.tally.close()
	return got
}

func transcript(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Whoever reckons the cost of a request when its usage passes needs all of its
// tokens by then.
func TestMeterKnowsTheUsageBeforeTheClient(t *testing.T) {
	var m counting
	s := &stream{protocol: chat, wish: wish{last: true}, tally: tally{meter: &m}}
	const usage = `data: {"choices":[],"usage":{"prompt_tokens":40,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":16}}}` + "\n\n"
	got, err := s.feed(nil, []byte(usage))
	if err != nil || string(got) != usage || m.prompt.Load() != 40 || m.cached.Load() != 16 || m.tokens.Load() != 4 {
		t.Errorf("feed() = %q, %v; the meter has %d, %d, %d", got, err, m.prompt.Load(), m.cached.Load(), m.tokens.Load())
	}
	if s.tally.close(); m.prompt.Load() != 40 {
		t.Errorf("the prompt counts twice: %d", m.prompt.Load())
	}
}

// Each transcript has the form of a real stream; the golden file beside it is
// what a client gets that asked for no usage.
func TestGoldenStreams(t *testing.T) {
	for _, tt := range []struct {
		name                       string
		protocol                   protocol
		prompt, cached, completion int64
		failed                     bool
	}{
		{"chat", chat, 40, 16, 4, false},
		{"chat-two-choices", chat, 12, 0, 5, false},
		{"completions", chat, 5, 0, 2, false},
		{"chat-engine-dies", chat, 9, 0, 2, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var m counting
			s := &stream{protocol: tt.protocol, tally: tally{meter: &m}}
			got := through(t, s, transcript(t, tt.name+".sse"))
			golden := filepath.Join("testdata", tt.name+".golden.sse")
			if os.Getenv("UPDATE_GOLDEN") != "" {
				if err := os.WriteFile(golden, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if want := transcript(t, tt.name+".golden.sse"); !bytes.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
			if !s.whole() || s.failed != tt.failed {
				t.Errorf("whole %v, failed %v; want true, %v", s.whole(), s.failed, tt.failed)
			}
			if m.prompt.Load() != tt.prompt || m.cached.Load() != tt.cached || m.tokens.Load() != tt.completion {
				t.Errorf("metered prompt %d, cached %d, completion %d; want %d, %d, %d",
					m.prompt.Load(), m.cached.Load(), m.tokens.Load(), tt.prompt, tt.cached, tt.completion)
			}
		})
	}
}

// However the network cuts the bytes, the client gets the same.
func TestAnySplitGivesTheSame(t *testing.T) {
	names, err := filepath.Glob("testdata/*.sse")
	if err != nil || len(names) < 8 {
		t.Fatalf("transcripts: %v, %v", names, err)
	}
	for _, name := range names {
		text := transcript(t, filepath.Base(name))
		for _, crlf := range []bool{false, true} {
			if crlf {
				text = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
			}
			for _, p := range []protocol{chat, audio, other} {
				rapid.Check(t, func(r *rapid.T) {
					var whole, split counting
					w := wish{last: rapid.Bool().Draw(r, "last"), continuous: rapid.Bool().Draw(r, "continuous")}
					want := through(t, &stream{protocol: p, wish: w, tally: tally{meter: &whole}}, text)
					var pieces [][]byte
					for rest := text; len(rest) > 0; {
						n := min(rapid.IntRange(1, 200).Draw(r, "n"), len(rest))
						pieces = append(pieces, rest[:n])
						rest = rest[n:]
					}
					got := through(t, &stream{protocol: p, wish: w, tally: tally{meter: &split}}, pieces...)
					if !bytes.Equal(got, want) {
						r.Fatalf("got\n%q\nwant\n%q", got, want)
					}
					if whole.tokens.Load() != split.tokens.Load() || whole.prompt.Load() != split.prompt.Load() {
						r.Fatalf("metered %d and %d tokens", whole.tokens.Load(), split.tokens.Load())
					}
				})
			}
		}
	}
}

// A client that asks for usage gets exactly what vLLM sends.
func TestUsageThatWasAskedForStays(t *testing.T) {
	text := transcript(t, "chat.sse")
	var m counting
	got := through(t, &stream{protocol: chat, wish: wish{last: true, continuous: true}, tally: tally{meter: &m}}, text)
	if !bytes.Equal(got, text) {
		t.Errorf("got\n%s\nwant\n%s", got, text)
	}
	got = through(t, &stream{protocol: chat, wish: wish{last: true}, tally: tally{meter: &m}}, text)
	if n := bytes.Count(got, []byte(`"usage"`)); n != 1 || !bytes.Contains(got, []byte(`"choices":[],"usage":{`)) {
		t.Errorf("usage %d times, want once, in the last chunk:\n%s", n, got)
	}
}

func TestAskUsage(t *testing.T) {
	for _, tt := range []struct {
		body, want string
		wish       wish
	}{
		{`{"a":1}`, `{"a":1}`, wish{}},
		{`{"stream":false,"stream_options":{}}`, `{"stream":false,"stream_options":{}}`, wish{}},
		{`{"stream":true}`, `{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`, wish{}},
		{"{\"stream\": true }\n", "{\"stream\": true ,\"stream_options\":{\"include_usage\":true,\"continuous_usage_stats\":true}}\n", wish{}},
		{`{"stream_options":null,"stream":true}`, `{"stream_options":{"include_usage":true,"continuous_usage_stats":true},"stream":true}`, wish{}},
		{`{"stream":true,"stream_options":{"include_usage":true}}`, `{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`, wish{last: true}},
		{`{"stream":true,"stream_options":{"x":[1,"}"],"include_usage":false , "continuous_usage_stats":true}}`,
			`{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true,"x":[1,"}"]}}`, wish{}},
		{`{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`,
			`{"stream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`, wish{true, true}},
		{`{"stream":true,"stream_options":7}`, `{"stream":true,"stream_options":7}`, wish{}},
		{`{"messages":[{"stream":true,"content":"\"stream\":true"}]}`, `{"messages":[{"stream":true,"content":"\"stream\":true"}]}`, wish{}},
		{`{"\u0073tream":true,"stream_options":null}`, `{"\u0073tream":true,"stream_options":{"include_usage":true,"continuous_usage_stats":true}}`, wish{}},
	} {
		got, w := askUsage([]byte(tt.body))
		if string(got) != tt.want || w != tt.wish {
			t.Errorf("askUsage(%s) = %s, %v; want %s, %v", tt.body, got, w, tt.want, tt.wish)
		}
		if !jsontext.Value(got).IsValid() {
			t.Errorf("askUsage(%s) = %s, which is no JSON", tt.body, got)
		}
	}
}

func TestEventTooLong(t *testing.T) {
	var m counting
	s := &stream{protocol: chat, tally: tally{meter: &m}}
	piece := bytes.Repeat([]byte("x"), 1<<20)
	for range maxEventBytes>>20 + 1 {
		if _, err := s.feed(nil, piece); err != nil {
			if err != errEventTooLong {
				t.Errorf("feed() = %v, want errEventTooLong", err)
			}
			return
		}
	}
	t.Error("an event without end was kept")
}

// The scanner must see the members that a real parser sees.
func FuzzMember(f *testing.F) {
	f.Add(`{"a":1,"usage":{"x":"}\\\""},"b":[{"usage":2}]}`)
	f.Add(`{"usage":null}`)
	f.Add(`{"usage":{"a":1},"b":{"usage":{"c":[]}}}`)
	f.Add(`{"a":[{"usage":1}],"usage" : 2 ,"c":"\"usage\":3"}`)
	f.Add(`{"\u0075sage":"\\"}`)
	f.Fuzz(func(t *testing.T, text string) {
		found := member([]byte(text), "usage") // must not panic, whatever it is
		last := lastMember([]byte(text), `"usage"`)
		var object map[string]jsontext.Value
		if json.Unmarshal([]byte(text), &object) != nil || object == nil {
			return
		}
		if last != found && !strings.Contains(text, `\u`) { // names that vLLM writes are not escaped
			t.Fatalf("%s: from the end %v, from the beginning %v", text, last, found)
		}
		want, ok := object["usage"]
		if ok != found.ok() {
			t.Fatalf("%s: found %v, want %v", text, found, ok)
		}
		if !ok {
			return
		}
		if got := found.of([]byte(text)); string(got) != string(want) {
			t.Fatalf("%s: found %q, want %q", text, got, want)
		}
		less := appendWithout(nil, []byte(text), found)
		var rest map[string]jsontext.Value
		if err := json.Unmarshal(less, &rest); err != nil || len(rest) != len(object)-1 {
			t.Fatalf("%s without usage is %s: %v", text, less, err)
		}
	})
}

// Whatever comes, what leaves is a sequence of whole events.
func FuzzStream(f *testing.F) {
	f.Add([]byte("data: {\"choices\":[{\"index\":0}],\"usage\":{\"completion_tokens\":3}}\n\ndata: [DONE]\n\n"), 3, byte(1))
	f.Add([]byte(": comment\r\n\r\ndata: {\"error\":{\"message\":\"x\"}}\r\n\r\n"), 1, byte(2))
	f.Add([]byte("event: error\ndata: {\"type\":\"error\"}\n\n\n\n"), 5, byte(2))
	f.Fuzz(func(t *testing.T, text []byte, cut int, p byte) {
		var m counting
		one := through(t, &stream{protocol: protocol(p % 3), tally: tally{meter: &m}}, text)
		at := min(max(cut, 0), len(text))
		two := through(t, &stream{protocol: protocol(p % 3), tally: tally{meter: &m}}, text[:at], text[at:])
		if !bytes.Equal(one, two) {
			t.Fatalf("cut at %d: %q, whole: %q", at, two, one)
		}
		if len(one) > 0 && !bytes.HasSuffix(one, []byte("\n\n")) && !bytes.HasSuffix(one, []byte("\n\r\n")) {
			t.Fatalf("half an event: %q", one)
		}
	})
}

func BenchmarkStreamToken(b *testing.B) {
	ev := []byte(`data: {"id":"chatcmpl-97d37af21f14dee4","object":"chat.completion.chunk","created":1795541066,"model":"smollm2","choices":[{"index":0,"delta":{"content":" capital"},"logprobs":null,"finish_reason":null,"token_ids":null}],"usage":{"prompt_tokens":40,"total_tokens":42,"completion_tokens":2,"completion_tokens_details":null}}` + "\n\n")
	var m counting
	s := &stream{protocol: chat, tally: tally{meter: &m}}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out, _ = s.feed(out[:0], ev)
	}
}

func TestWireErrors(t *testing.T) {
	for _, tt := range []struct {
		status     int
		body       string
		wantStatus int
		want       string // type code param
		says       string
	}{
		{400, `{"error":{"message":"1 validation error:\n  {'type': 'json_invalid', 'loc': 'body.34', 'msg': 'JSON decode error', 'input': '<dict of 0 items>'}","type":"Bad Request","param":"body.34","code":400}}`,
			400, "invalid_request_error invalid_json ", "JSON decode error"},
		{400, `{"error":{"message":"1 validation error:\n  {'type': 'missing', 'loc': 'body.messages', 'msg': 'Field required', 'input': {'secret': 'text'}}","type":"Bad Request","param":"body.messages","code":400}}`,
			400, "invalid_request_error missing_field messages", "messages: Field required"},
		{400, `{"error":{"message":"This model's maximum context length is 1024 tokens.","type":"BadRequestError","param":"input_tokens","code":400}}`,
			400, "invalid_request_error context_length_exceeded input_tokens", "1024 tokens"},
		{400, `{"error":{"message":"temperature must be non-negative","type":"BadRequestError","param":"temperature","code":400}}`,
			400, "invalid_request_error invalid_value temperature", "non-negative"},
		{404, `{"error":{"message":"The model x does not exist.","type":"NotFoundError","param":"model","code":404}}`,
			404, "not_found_error model_not_found model", "does not exist"},
		{404, `{"detail":"Not Found"}`, 404, "not_found_error route_not_found ", "POST /v1/embeddings"},
		{405, `{"detail":"Method Not Allowed"}`, 405, "invalid_request_error method_not_allowed ", ""},
		{401, `{"error":"Unauthorized"}`, 500, "server_error internal_error ", "VLLM_API_KEY"},
		{422, `{"error":{"message":"image: HTTP 404","type":"UnprocessableEntityError","param":null,"code":422}}`,
			422, "invalid_request_error invalid_value ", "image"},
		{501, `{"error":{"message":"no beam search","type":"NotImplementedError","param":"use_beam_search","code":501}}`,
			400, "invalid_request_error unsupported_parameter use_beam_search", "beam"},
		{503, `{"error":"scaling"}`, 429, "rate_limit_error queue_full ", "Retry-After"},
		{500, `{"error":{"message":"secret path /x/y.py","type":"InternalServerError","param":null,"code":500}}`,
			500, "server_error internal_error ", "the log"},
		{500, `{"error":{"message":"EngineCore encountered an issue. See stack trace","type":"InternalServerError","code":500}}`,
			502, "server_error engine_broke_off ", "started again"},
		{502, "<html>", 500, "server_error internal_error ", ""},
		{400, "", 400, "invalid_request_error invalid_value ", "did not say why"},
	} {
		e := wireError(tt.status, []byte(tt.body), "POST /v1/embeddings")
		got := fmt.Sprintf("%s %s %s", e.Type, e.Code, e.Param)
		if e.Status != tt.wantStatus || got != tt.want || !strings.Contains(e.Message, tt.says) || e.Message == "" {
			t.Errorf("%d %s:\ngot  %d %s: %s\nwant %d %s: %s", tt.status, tt.body, e.Status, got, e.Message, tt.wantStatus, tt.want, tt.says)
		}
		if strings.Contains(e.Message, "secret") || strings.Contains(e.Message, "\n") {
			t.Errorf("%s: the message tells too much: %q", tt.body, e.Message)
		}
	}
}
