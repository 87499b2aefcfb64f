package serve

import (
	"bytes"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// part is one part of a form as a client writes it.
type part struct{ header, value string }

const recording = `form-data; name="file"; filename="a.wav"`

func field(name, value string) part { return part{`form-data; name="` + name + `"`, value} }

// formOf writes parts with a boundary.
func formOf(t testing.TB, boundary string, parts ...part) (body, contentType string) {
	t.Helper()
	var b bytes.Buffer
	w := multipart.NewWriter(&b)
	if err := w.SetBoundary(boundary); err != nil {
		t.Fatal(err)
	}
	for _, p := range parts {
		out, err := w.CreatePart(textproto.MIMEHeader{"Content-Disposition": {p.header}, "Content-Transfer-Encoding": {"quoted-printable"}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(out, p.value); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String(), w.FormDataContentType()
}

// What is a form reaches the engine as one that has what was checked and no more.
func TestFormReachesTheEngine(t *testing.T) {
	var got *multipart.Form
	var path string
	cfg := config()
	f := newFixture(t, cfg, ready(1), func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1 << 20); err != nil {
			t.Errorf("the engine's form: %v", err)
		}
		got, path = r.MultipartForm, r.URL.Path
		say(w, r)
	})
	sound := "RIFF=3D\r\n--other\r\n\x00\xff"
	body, contentType := formOf(t, "mine", part{`form-data; name="file"; filename="/etc/pass\"wd.wav"`, sound}, field("model", "small"),
		field("stream", "false"), field("timestamp_granularities[]", "word"), field("timestamp_granularities[]", "segment"))
	w := f.do("POST", "/v1/audio/transcriptions", "preamble\r\n"+body+"epilogue", "Content-Type", contentType)
	if w.Code != 200 || path != "/v1/audio/transcriptions" {
		t.Fatalf("HTTP %d %s", w.Code, w.Body)
	}
	if v := got.Value["timestamp_granularities[]"]; len(v) != 2 || got.Value["model"][0] != "small" || len(got.Value) != 3 {
		t.Errorf("fields %v", got.Value)
	}
	file := got.File["file"][0]
	if strings.Contains(file.Filename, "/") || !strings.HasSuffix(file.Filename, ".wav") {
		t.Errorf("the file's name is %q", file.Filename)
	}
	in, err := file.Open()
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(in); err != nil || string(text) != sound {
		t.Errorf("the recording is %q, %v, want %q", text, err, sound)
	}
	f.wantMetrics(t, `infer_requests_total{code="200",model="small",route="/v1/audio/transcriptions"} 1`)
}

func TestFormFaults(t *testing.T) {
	f := newFixture(t, config(), ready(1), func(http.ResponseWriter, *http.Request) { t.Error("the engine was asked") })
	file := part{recording, "RIFF"}
	many := []part{file}
	for range maxFields {
		many = append(many, field("include[]", "logprobs"))
	}
	for name, tt := range map[string]struct {
		parts  []part
		status int
		says   string
	}{
		"no file":           {[]part{field("model", "small")}, 400, `"param":"file","code":"missing_field"`},
		"nothing":           {nil, 400, `"code":"missing_field"`},
		"a path for a file": {[]part{field("file", "/etc/passwd")}, 400, `"param":"file","code":"invalid_value"`},
		"an empty file":     {[]part{{recording, ""}}, 400, `the recording is empty`},
		"two files":         {[]part{file, file}, 400, `file comes twice`},
		"another file":      {[]part{file, {`form-data; name="model"; filename="m"`, "small"}}, 400, `"param":"model","code":"invalid_value"`},
		"two models":        {[]part{file, field("model", "small"), field("model", "secret")}, 400, `model comes twice`},
		"an unknown model":  {[]part{file, field("model", "gpt")}, 404, `"code":"model_not_found"`},
		"an unknown field":  {[]part{file, field("vllm_xargs", "{}")}, 400, `"param":"vllm_xargs","code":"unsupported_parameter"`},
		"a broken header":   {[]part{file, field("x\ny", "1")}, 400, `"code":"invalid_value"`},
		"a long field":      {[]part{file, field("prompt", strings.Repeat("x", maxFieldBytes+1))}, 400, `"param":"prompt","code":"limit_exceeded"`},
		"a strange stream":  {[]part{file, field("stream", "maybe")}, 400, `"param":"stream","code":"invalid_value"`},
		"strange tokens":    {[]part{file, field("max_completion_tokens", "-1")}, 400, `"param":"max_completion_tokens","code":"invalid_value"`},
		"many fields":       {many, 400, `"code":"limit_exceeded"`},
		"a long name":       {[]part{{`form-data; name="file"; filename="` + strings.Repeat("x", 300) + `"`, "RIFF"}}, 400, `"param":"file","code":"limit_exceeded"`},
		"too large":         {[]part{{recording, strings.Repeat("x", 1<<20)}}, 413, `"code":"request_too_large"`},
	} {
		body, contentType := formOf(t, "mine", tt.parts...)
		w := f.do("POST", "/v1/audio/translations", body, "Content-Type", contentType)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%s: HTTP %d %s; want %d with %s", name, w.Code, w.Body, tt.status, tt.says)
		}
	}
	body, _ := formOf(t, "mine", file)
	for contentType, status := range map[string]int{"": 415, "application/json": 415, "multipart/form-data": 415, "multipart/mixed; boundary=mine": 415,
		"multipart/form-data; boundary=mine; boundary=other": 415, "multipart/form-data; boundary=other": 400} {
		if w := f.do("POST", "/v1/audio/translations", body, "Content-Type", contentType); w.Code != status {
			t.Errorf("Content-Type %q: HTTP %d %s, want %d", contentType, w.Code, w.Body, status)
		}
	}
	if w := f.do("POST", "/v1/audio/translations", body[:len(body)-8], "Content-Type", "multipart/form-data; boundary=mine"); w.Code != 400 {
		t.Errorf("half a form: HTTP %d %s", w.Code, w.Body)
	}
}

// A recording may be larger than a text, up to what both services take.
func TestRecordingLimit(t *testing.T) {
	cfg := config()
	cfg.MaxMediaBodyBytes, cfg.MaxQueueBytes = 32<<20, 64<<20
	f := newFixture(t, cfg, ready(1), say)
	f.fake.media = true
	for n, status := range map[int]int{maxRecordingBytes: 200, maxRecordingBytes + 1: 413} {
		body, contentType := formOf(t, "mine", part{recording, strings.Repeat("x", n)})
		if w := f.do("POST", "/v1/audio/transcriptions", body, "Content-Type", contentType); w.Code != status {
			t.Errorf("%d bytes: HTTP %d %s, want %d", n, w.Code, w.Body, status)
		}
	}
}

// Whatever a form holds, the engine gets the same names and values, or the
// client a refusal.
func TestFormIsWrittenAnew(t *testing.T) {
	var got *multipart.Form
	f := newFixture(t, config(), ready(1), func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1 << 20); err != nil {
			t.Errorf("the engine's form: %v", err)
		}
		got = r.MultipartForm
		say(w, r)
	})
	rapid.Check(t, func(r *rapid.T) {
		value := rapid.StringOf(rapid.SampledFrom([]rune("a-\r\n\"\x00;=ü")))
		prompt, file := value.Draw(r, "prompt"), value.Draw(r, "file")+"."
		body, contentType := formOf(t, "aa", field("prompt", prompt), part{recording, file})
		w := f.do("POST", "/v1/audio/transcriptions", body, "Content-Type", contentType)
		if w.Code == 400 && strings.Contains("\n"+prompt+"\n"+file, "\n--aa") { // it closed the part
			return
		}
		if w.Code != 200 || got.Value["prompt"][0] != prompt || got.File["file"][0].Size != int64(len(file)) {
			r.Fatalf("HTTP %d %s; prompt %q became %q", w.Code, w.Body, prompt, got.Value["prompt"])
		}
	})
}

// Every name of a route is the same route.
func TestAliases(t *testing.T) {
	var path string
	f := newFixture(t, config(), ready(1), func(w http.ResponseWriter, r *http.Request) { path = r.URL.Path; say(w, r) })
	for alias, want := range aliases {
		if w := f.do("POST", alias, `{"model":"small","query":"a","documents":["b"]}`); w.Code != 200 || path != want {
			t.Errorf("%s: HTTP %d at %s, want 200 at %s", alias, w.Code, path, want)
		}
		if w := f.do("POST", alias, `{"query":"a","priority":1}`); w.Code != 400 {
			t.Errorf("%s: a denied field gets HTTP %d", alias, w.Code)
		}
	}
	f.wantMetrics(t, `infer_requests_total{code="200",model="small",route="/v1/rerank"} 2`)
}
