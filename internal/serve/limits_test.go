package serve

import (
	"encoding/json/v2"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"

	"infer/internal/openai"
)

// refused is a body that must not reach the engine.
type refused struct {
	name, path, body string
	param, code      string
	says             string // a part of the message
}

// wantRefused sends each body and holds the answer to it.
func wantRefused(t *testing.T, cfg Config, media bool, table []refused) {
	t.Helper()
	asked := 0
	f := newFixture(t, cfg, ready(1), func(http.ResponseWriter, *http.Request) { asked++ })
	f.fake.media = media
	for _, tt := range table {
		t.Run(tt.name, func(t *testing.T) {
			w := f.do("POST", tt.path, tt.body)
			var got struct {
				Error struct {
					Message, Type string
					Param, Code   *string
				}
			}
			if err := json.Unmarshal(w.Body.Bytes(), &got, json.MatchCaseInsensitiveNames(true)); err != nil {
				t.Fatalf("answer %s: %v", w.Body, err)
			}
			if w.Code != 400 || got.Error.Type != openai.TypeInvalidRequest || got.Error.Code == nil || *got.Error.Code != tt.code {
				t.Errorf("got %d %.400s, want 400 and %s", w.Code, w.Body, tt.code)
			}
			if got.Error.Param == nil || *got.Error.Param != tt.param {
				t.Errorf("param in %.400s, want %s", w.Body, tt.param)
			}
			if !strings.Contains(got.Error.Message, tt.says) || len(got.Error.Message) > 600 {
				t.Errorf("message %.700q, want %q in it", got.Error.Message, tt.says)
			}
		})
	}
	if asked != 0 {
		t.Errorf("the engine saw %d requests", asked)
	}
}

// many is a list of n times the same element.
func many(n int, element string) string {
	return "[" + strings.TrimSuffix(strings.Repeat(element+",", n), ",") + "]"
}

func long(n int) string { return strings.Repeat("x", n) }

// bigSchema is a schema of more than n bytes.
func bigSchema(n int) string { return `{"type":"object","description":"` + long(n) + `"}` }

const chatPath, completions, responses, anthropic = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"

// wrap puts more members into an otherwise sound body of a route.
func wrap(path, members string) string {
	base := map[string]string{
		chatPath: `"messages":[{"role":"user","content":"hi"}]`, completions: `"prompt":"hi"`, responses: `"input":"hi"`,
		"/tokenize": `"prompt":"hi"`, "/detokenize": `"tokens":[1]`, "/v1/embeddings": `"input":"hi"`,
		"/classify": `"input":"hi"`, "/v1/rerank": `"query":"q"`, "/v1/score": `"text_1":"a"`,
	}[path]
	return `{"model":"small",` + base + "," + members + "}"
}

func TestCaps(t *testing.T) {
	const limit, invalid, context = openai.CodeLimit, openai.CodeInvalidValue, openai.CodeContextLength
	const qwen = `{"model":"Qwen/Qwen3-0.6B","prompt":"hi",` // whose context is 4096
	table := []refused{
		{"n", chatPath, wrap(chatPath, `"n":65`), "n", limit, "more than the 64 allowed; ask for less (raise it with --max-n)"},
		{"n in another notation", chatPath, wrap(chatPath, `"n":6.5e1`), "n", limit, "n is 65"},
		{"n as a string", chatPath, wrap(chatPath, `"n":"1000"`), "n", invalid, "n must be an integer, got a string"},
		{"n as a boolean", chatPath, wrap(chatPath, `"n":true`), "n", invalid, "got a boolean"},
		{"n of no size", chatPath, wrap(chatPath, `"n":1e400`), "n", invalid, "of sensible size"},
		{"n zero", chatPath, wrap(chatPath, `"n":0`), "n", invalid, "at least 1"},
		{"best_of", completions, wrap(completions, `"best_of":65`), "best_of", limit, "--max-n"},
		{"prompts times answers", completions, `{"model":"small","prompt":` + many(65, `"a"`) + `,"n":64}`, "n", limit, "65 prompts with 64 answers"},
		{"max_tokens", completions, qwen + `"max_tokens":4097}`, "max_tokens", context, "the model's context holds 4096 tokens"},
		{"max_tokens negative", completions, wrap(completions, `"max_tokens":-1`), "max_tokens", invalid, "at least 0"},
		{"max_tokens as a string", completions, wrap(completions, `"max_tokens":"9"`), "max_tokens", invalid, "integer"},
		{"max_completion_tokens", chatPath, `{"messages":[],"max_completion_tokens":99999}`, "max_completion_tokens", context, "4096"},
		{"max_output_tokens", responses, `{"input":"x","max_output_tokens":99999}`, "max_output_tokens", context, "4096"},
		{"min_tokens", chatPath, `{"messages":[],"min_tokens":99999}`, "min_tokens", context, "4096"},
		{"logprobs", completions, wrap(completions, `"logprobs":21`), "logprobs", limit, "more than the 20 allowed"},
		{"logprobs of everything", completions, wrap(completions, `"logprobs":-1`), "logprobs", invalid, "at least 0"},
		{"top_logprobs", chatPath, wrap(chatPath, `"top_logprobs":21`), "top_logprobs", limit, "20"},
		{"top_logprobs of a response", responses, wrap(responses, `"top_logprobs":21`), "top_logprobs", limit, "20"},
		{"prompt_logprobs", completions, wrap(completions, `"prompt_logprobs":21`), "prompt_logprobs", limit, "20"},
		{"prompt_logprobs of everything", completions, wrap(completions, `"prompt_logprobs":-1`), "prompt_logprobs", invalid, "at least 0"},
		{"stop", chatPath, wrap(chatPath, `"stop":`+many(17, `"a"`)), "stop", limit, "17 entries, more than the 16 allowed"},
		{"stop of some length", chatPath, wrap(chatPath, `"stop":["a","`+long(1025)+`"]`), "stop[1]", limit, "1025 bytes, more than the 1024"},
		{"one stop", chatPath, wrap(chatPath, `"stop":"`+long(1025)+`"`), "stop", limit, "1024"},
		{"stop of a number", chatPath, wrap(chatPath, `"stop":[1]`), "stop[0]", invalid, "must be a string, got a number"},
		{"stop_token_ids", chatPath, wrap(chatPath, `"stop_token_ids":`+many(1025, "1")), "stop_token_ids", limit, "1024"},
		{"allowed_token_ids", completions, wrap(completions, `"allowed_token_ids":`+many(1025, "1")), "allowed_token_ids", limit, "1024"},
		{"logprob_token_ids", completions, wrap(completions, `"logprob_token_ids":`+many(1025, "1")), "logprob_token_ids", limit, "1024"},
		{"bad_words", chatPath, wrap(chatPath, `"bad_words":`+many(129, `"a"`)), "bad_words", limit, "128"},
		{"prompts", completions, `{"prompt":` + many(2049, `"a"`) + `}`, "prompt", limit, "2049 entries, more than the 2048 allowed; send fewer (raise it with --max-prompts)"},
		{"prompts of ids", completions, `{"prompt":` + many(2049, `[1]`) + `}`, "prompt", limit, "2048"},
		{"messages", chatPath, `{"messages":` + many(4097, `{}`) + `}`, "messages", limit, "4096"},
		{"items", responses, `{"input":` + many(4097, `{}`) + `}`, "input", limit, "4096"},
		{"parts", chatPath, `{"messages":[{"role":"user","content":` + many(16384, `{"type":"text","text":"a"}`) + `}]}`, "messages", limit, "more than 16384 parts"},
		{"tools", chatPath, wrap(chatPath, `"tools":`+many(129, `{}`)), "tools", limit, "more than the 128 allowed; send fewer (raise it with --max-tools)"},
		{"name of a tool", chatPath, wrap(chatPath, `"tools":[{"type":"function","function":{"name":"`+long(257)+`"}}]`), "tools[0].function.name", limit, "256"},
		{"schema of a tool", chatPath, wrap(chatPath, `"tools":[{},{"function":{"parameters":`+bigSchema(65536)+`}}]`), "tools[1].function.parameters", limit, "--max-schema-bytes"},
		{"schema of a tool of a response", responses, wrap(responses, `"tools":[{"type":"function","name":"f","parameters":`+bigSchema(65536)+`}]`), "tools[0].parameters", limit, "--max-schema-bytes"},
		{"pattern of a tool", chatPath, wrap(chatPath, `"tools":[{"function":{"parameters":{"properties":{"a":{"pattern":"`+long(2049)+`"}}}}}]`), "tools[0].function.parameters.properties.a.pattern", limit, "2048"},
		{"name of a pattern", chatPath, wrap(chatPath, `"tools":[{"function":{"parameters":{"patternProperties":{"`+long(2049)+`":{}}}}}]`), "tools[0].function.parameters.patternProperties." + long(64) + "…", limit, "2048"},
		{"schema", chatPath, wrap(chatPath, `"response_format":{"type":"json_schema","json_schema":{"name":"a","schema":`+bigSchema(65536)+`}}`), "response_format.json_schema.schema", limit, "--max-schema-bytes"},
		{"schema of a response", responses, wrap(responses, `"text":{"format":{"type":"json_schema","name":"a","schema":`+bigSchema(65536)+`}}`), "text.format.schema", limit, "--max-schema-bytes"},
		{"structured json", chatPath, wrap(chatPath, `"structured_outputs":{"json":`+bigSchema(65536)+`}`), "structured_outputs.json", limit, "--max-schema-bytes"},
		{"structured json as text", chatPath, wrap(chatPath, `"structured_outputs":{"json":"`+long(65536)+`"}`), "structured_outputs.json", limit, "--max-schema-bytes"},
		{"grammar", chatPath, wrap(chatPath, `"structured_outputs":{"grammar":"`+long(65536)+`"}`), "structured_outputs.grammar", limit, "--max-schema-bytes"},
		{"choice", chatPath, wrap(chatPath, `"structured_outputs":{"choice":["`+long(65536)+`"]}`), "structured_outputs.choice", limit, "--max-schema-bytes"},
		{"structural tag", completions, wrap(completions, `"structured_outputs":{"structural_tag":"`+long(65536)+`"}`), "structured_outputs.structural_tag", limit, "--max-schema-bytes"},
		{"regex", chatPath, wrap(chatPath, `"structured_outputs":{"regex":"`+long(2049)+`"}`), "structured_outputs.regex", limit, "2048"},
		{"logit_bias", chatPath, wrap(chatPath, `"logit_bias":{`+biasesOf(1025)+`}`), "logit_bias", limit, "1024"},
		{"user", chatPath, wrap(chatPath, `"user":"`+long(513)+`"`), "user", limit, "512"},
		{"user of an embedding", "/v1/embeddings", wrap("/v1/embeddings", `"user":"`+long(513)+`"`), "user", limit, "512"},
		{"metadata", responses, wrap(responses, `"metadata":{`+biasesOf(17)+`}`), "metadata", limit, "16"},
		{"name in metadata", responses, wrap(responses, `"metadata":{"`+long(65)+`":"a"}`), "metadata." + long(64) + "…", limit, "64"},
		{"value in metadata", chatPath, wrap(chatPath, `"metadata":{"a":"`+long(513)+`"}`), "metadata.a", limit, "512"},
		{"include", responses, wrap(responses, `"include":`+many(33, `"a"`)), "include", limit, "32"},
		{"inputs", "/v1/embeddings", `{"input":` + many(2049, `"a"`) + `}`, "input", limit, "2048"},
		{"texts to classify", "/classify", `{"input":` + many(2049, `"a"`) + `}`, "input", limit, "2048"},
		{"documents", "/v1/rerank", `{"query":"q","documents":` + many(2049, `"a"`) + `}`, "documents", limit, "2048"},
		{"texts to score", "/v1/score", `{"text_1":"q","text_2":` + many(2049, `"a"`) + `}`, "text_2", limit, "2048"},
		{"messages to tokenize", "/tokenize", `{"messages":` + many(4097, `{}`) + `}`, "messages", limit, "4096"},
		{"tools to tokenize", "/tokenize", `{"messages":[],"tools":` + many(129, `{}`) + `}`, "tools", limit, "128"},
	}
	cfg := config()
	cfg.MaxBodyBytes, cfg.MaxMediaBodyBytes = 4<<20, 4<<20
	wantRefused(t, cfg, false, table)
}

func biasesOf(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `"%d":1,`, i)
	}
	return strings.TrimSuffix(b.String(), ",")
}

// Anthropic's shape has neither param nor code: the message names the field.
func TestCapsOfMessages(t *testing.T) {
	asked := 0
	f := newFixture(t, config(), ready(1), func(http.ResponseWriter, *http.Request) { asked++ })
	for members, want := range map[string]string{
		`"stop_sequences":` + many(17, `"a"`):                            "stop_sequences has 17 entries, more than the 16 allowed",
		`"max_tokens":99999`:                                             "max_tokens is 99999, but the model's context holds 4096 tokens",
		`"tools":` + many(129, `{}`):                                     "tools has 129 entries",
		`"tools":[{"name":"a","input_schema":` + bigSchema(65536) + `}]`: "tools[0].input_schema has 65570 bytes",
		`"output_config":{"format":{"type":"json_schema","schema":` + bigSchema(65536) + `}}`: "output_config.format.schema has 65570 bytes",
		`"chat_template":"x"`: "chat_template may not be set by clients of this server",
		`"messages":[{"role":"user","content":"a"}],"metadata":{"user_id":"` + long(513) + `"}`: "metadata.user_id has 513 bytes",
		`"messages":` + many(4097, `{}`): "messages has 4097 entries",
		`"messages":[{"role":"user","content":"a"}],"thinking":null,"kv_transfer_params":{"a":1}`:   "kv_transfer_params may not be set",
		`"messages":[{"role":"user","content":"a"}],"max_tokens":1,"vllm_xargs":{"a":"b"},"n":null`: "vllm_xargs may not be set",
	} {
		w := f.do("POST", anthropic, `{"model":"Qwen/Qwen3-0.6B",`+members+`}`)
		if w.Code != 400 || !strings.HasPrefix(w.Body.String(), `{"type":"error","error":{"type":"invalid_request_error","message":"`+want) {
			t.Errorf("got %d %s, want %s", w.Code, w.Body, want)
		}
	}
	if asked != 0 {
		t.Errorf("the engine saw %d requests", asked)
	}
}

func TestDeniedFields(t *testing.T) {
	var table []refused
	for _, path := range []string{chatPath, completions, responses, "/v1/embeddings", "/v1/rerank", "/v1/score", "/classify", "/tokenize", "/detokenize"} {
		for field, value := range map[string]string{
			"chat_template": `"{{ messages }}"`, "prompt_embeds": `"AAAA"`, "kv_transfer_params": `{"remote_host":"10.0.0.1"}`,
			"ec_transfer_params": `{}`, "mm_processor_kwargs": `{}`, "media_io_kwargs": `{}`, "vllm_xargs": `{}`, "priority": `-1`,
			"request_id": `"a"`, "session_id": `"a"`, "logits_processors": `["os.system"]`, "data_parallel_rank": `0`, "extra_args": `{}`,
		} {
			table = append(table, refused{path + " " + field, path, wrap(path, `"`+field+`":`+value), field, openai.CodeFieldDenied,
				"leave it out, or allow it with --allow-fields " + field})
		}
	}
	table = append(table,
		refused{"escaped name", chatPath, wrap(chatPath, `"\u0070riority":1`), "priority", openai.CodeFieldDenied, "--allow-fields"},
		refused{"a template's argument", chatPath, wrap(chatPath, `"chat_template_kwargs":{"enable_thinking":true,"tokenize":false}`),
			"chat_template_kwargs.tokenize", openai.CodeFieldDenied, "--allow-fields chat_template_kwargs"},
		refused{"an argument that is a list", chatPath, wrap(chatPath, `"chat_template_kwargs":{"thinking":[1]}`),
			"chat_template_kwargs.thinking", openai.CodeInvalidValue, "a boolean, a number or a string"},
		refused{"an argument of some length", chatPath, wrap(chatPath, `"chat_template_kwargs":{"thinking":"`+long(513)+`"}`),
			"chat_template_kwargs.thinking", openai.CodeLimit, "512"},
		refused{"arguments that are none", chatPath, wrap(chatPath, `"chat_template_kwargs":"x"`), "chat_template_kwargs", openai.CodeInvalidValue, "an object"},
	)
	wantRefused(t, config(), false, table)
}

// What is at its limit, allowed or null passes, and the engine gets the very
// bytes.
func TestAllowed(t *testing.T) {
	cfg := config()
	cfg.Policy.AllowFields = []string{"priority"}
	var got string
	f := newFixture(t, cfg, ready(1), func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = string(b)
		_, _ = io.WriteString(w, "{}")
	})
	for _, tt := range []struct{ path, members string }{
		{chatPath, `"n":64,"stop":` + many(16, `"`+long(1024)+`"`)},
		{chatPath, ` "n" : null , "stop":null,"tools":null,"logit_bias":null,"metadata":null,"user":null,"chat_template":null,"chat_template_kwargs":null`},
		{chatPath, `"chat_template_kwargs":{"enable_thinking":false,"reasoning_effort":"low","thinking_budget":12}`},
		{chatPath, `"priority":3,"logprobs":true,"top_logprobs":20,"unknown":{"n":1000,"priority":1},"uuid":"a"`},
		{chatPath, `"tools":` + many(128, `{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}`)},
		{chatPath, `"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":` + bigSchema(65500) + `}}`},
		{chatPath, `"logit_bias":{` + biasesOf(1024) + `},"metadata":{"` + long(64) + `":"` + long(512) + `"},"user":"` + long(512) + `"`},
		{completions, `"best_of":64,"logprobs":20,"prompt_logprobs":0,"max_tokens":1048576`},
		{completions, `"best_of":0`},
		{"/v1/embeddings", `"encoding_format":"base64","dimensions":12`},
		{"/v1/rerank", `"documents":` + many(2048, `"a"`)},
	} {
		body := wrap(tt.path, tt.members)
		if w := f.do("POST", tt.path, body); w.Code != 200 || got != body {
			t.Errorf("%.200s: %d %s, the engine got %.200s", tt.members, w.Code, w.Body, got)
		}
	}
	ids := `{"model":"Qwen/Qwen3-0.6B","max_tokens":4096,"prompt":` + many(9000, "1") + `}`
	if w := f.do("POST", completions, ids); w.Code != 200 || got != ids {
		t.Errorf("one prompt of many ids: %d %s", w.Code, w.Body)
	}
}

// The bodies of engines that take media may be larger, by their media only.
func TestMediaBodies(t *testing.T) {
	const pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
	picture := func(padding int) string { // what follows the end of a PNG is ignored
		return `{"model":"small","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,` +
			strings.TrimRight(pixel, "=") + strings.Repeat("A", padding-padding%4+2) + `"}}]}]}`
	}
	for _, tt := range []struct {
		name, path, body string
		media            bool
		status           int
		says             string
	}{
		{"a large picture", chatPath, picture(2 << 20), true, 200, "{}"},
		{"for a text model", chatPath, picture(2 << 20), false, 413, "the body is larger than 1048576 bytes; shorten it or raise --max-body-bytes"},
		{"a picture that is too large", chatPath, picture(3 << 20), true, 400, `messages[0].content[0].image_url.url is larger than the 2097152 bytes allowed, decoded; scale it down (raise it with --max-media-bytes)`},
		{"pictures that are too large", chatPath, picture(5 << 20), true, 413, "the body is larger than 4194304 bytes; shorten it or raise --max-media-body-bytes"},
		{"large text", chatPath, wrap(chatPath, `"x":"`+long(1<<20)+`"`), true, 413, "the body without its media is larger than 1048576 bytes; shorten it or raise --max-body-bytes"},
		{"an address", chatPath, strings.Replace(picture(0), "data:image/png;base64,", "https://example.com/", 1), true, 400, "is not fetched by this server, unless its host is named with --media-hosts"},
		{"a file", chatPath, strings.Replace(picture(0), "data:image/png;base64,", "file:///", 1), true, 400, "must begin with data: or https://"},
	} {
		asked := 0
		f := newFixture(t, config(), ready(1), func(w http.ResponseWriter, r *http.Request) {
			asked++
			if b, err := io.ReadAll(r.Body); err != nil || string(b) != tt.body {
				t.Errorf("%s: the engine got %d bytes of %d, %v", tt.name, len(b), len(tt.body), err)
			}
			_, _ = io.WriteString(w, "{}")
		})
		f.fake.media = tt.media
		w := f.do("POST", tt.path, tt.body)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%s: %d %.500s, want %d %s", tt.name, w.Code, w.Body, tt.status, tt.says)
		}
		if want := map[bool]int{true: 1}[tt.status == 200]; asked != want {
			t.Errorf("%s: the engine was asked %d times, want %d", tt.name, asked, want)
		}
	}
}

// A route that reads JSON is held to rules of the policy, or to all of them.
func TestEveryRouteHasRules(t *testing.T) {
	asked := 0
	f := newFixture(t, config(), ready(1), func(http.ResponseWriter, *http.Request) { asked++ })
	checked := 0
	err := chi.Walk(f.router, func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if method != http.MethodPost {
			return nil
		}
		checked++
		w := f.do("POST", route, `{"model":"small","priority":1}`)
		if !strings.Contains(w.Body.String(), "priority may not be set") && w.Code != http.StatusUnsupportedMediaType { // which are forms
			t.Errorf("%s: %d %s", route, w.Code, w.Body)
		}
		return nil
	})
	if err != nil || asked != 0 || checked < 10 {
		t.Errorf("Walk() = %v, the engine was asked %d times, %d routes", err, asked, checked)
	}
}

// What is no body that all parsers read alike reaches no engine.
func TestBodiesThatParsersReadApart(t *testing.T) {
	asked := 0
	f := newFixture(t, config(), ready(1), func(http.ResponseWriter, *http.Request) { asked++ })
	for name, body := range map[string]string{
		"too deep":          `{"a":` + strings.Repeat("[", 64) + strings.Repeat("]", 64) + `}`,
		"far too deep":      strings.Repeat(`{"a":`, 100000),
		"repeated":          `{"n":1,"n":1000}`,
		"repeated, escaped": `{"n":1,"\u006e":1000}`,
		"repeated deeper":   `{"stream_options":{"include_usage":true,"include_usage":false}}`,
		"two objects":       `{"n":1}{"n":1000}`,
		"a comment":         `{"n":1/*,"n":1000*/}`,
		"a mark of order":   "\ufeff{}",
		"no UTF-8":          "{\"user\":\"\xff\"}",
		"overlong UTF-8":    "{\"user\":\"\xc0\xaf\"}",
		"half a surrogate":  `{"user":"\ud800"}`,
		"NUL":               "{\"user\":\"\x00\"}",
		"NaN":               `{"temperature":NaN}`,
		"infinity":          `{"temperature":Infinity}`,
		"single quotes":     `{'n':1}`,
		"leading zero":      `{"n":01}`,
		"hexadecimal":       `{"n":0x10}`,
		"UTF-16":            "{\x00}\x00",
	} {
		w := f.do("POST", completions, body)
		if w.Code != 400 || !strings.Contains(w.Body.String(), `"type":"invalid_request_error","param":null,"code":"invalid_json"`) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
	if asked != 0 {
		t.Errorf("the engine saw %d requests", asked)
	}
}
