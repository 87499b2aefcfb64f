package policy

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"

	"infer/internal/openai"
)

// media makes a policy as the flags do by default, but for what set changes.
func media(t testing.TB, set func(*Config)) *Policy {
	t.Helper()
	cfg := Config{MaxN: 64, MaxPrompts: 2048, MaxTools: 128, MaxSchemaBytes: 1 << 16, MaxMediaBytes: 1 << 16,
		MediaTypes: []string{"image/png", "image/jpeg", "image/gif", "image/webp", "audio/wav", "audio/mpeg", "audio/flac", "audio/ogg"}}
	if set != nil {
		set(&cfg)
	}
	p, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var seeing = Limits{TextBytes: 1 << 20, TotalBytes: 4 << 20, Media: true}

// apply peeks at a body and holds it to p.
func apply(t testing.TB, ctx context.Context, p *Policy, route, body string, limits Limits) (string, openai.Request, *openai.Error) {
	t.Helper()
	req, e := openai.Peek([]byte(body))
	if e != nil {
		t.Fatalf("Peek(%.200s) = %v", body, e)
	}
	out, e := p.Apply(ctx, route, []byte(body), &req, limits)
	return string(out), req, e
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// picture is a PNG of w × h points; only its header says so when it is large.
func picture(w, h int) []byte {
	var b bytes.Buffer
	_ = png.Encode(&b, image.NewGray(image.Rect(0, 0, min(w, 64), min(h, 64)))) // to memory
	out := b.Bytes()
	binary.BigEndian.PutUint32(out[16:], uint32(w))
	binary.BigEndian.PutUint32(out[20:], uint32(h))
	binary.BigEndian.PutUint32(out[29:], crc32.ChecksumIEEE(out[12:29]))
	return out
}

func encoded(kind string) []byte {
	var b bytes.Buffer
	small := image.NewPaletted(image.Rect(0, 0, 2, 2), color.Palette{color.Black, color.White})
	switch kind {
	case "image/png":
		_ = png.Encode(&b, small)
	case "image/jpeg":
		_ = jpeg.Encode(&b, small, nil)
	case "image/gif":
		_ = gif.Encode(&b, small, nil)
	case "image/webp": // one point, lossless
		b.WriteString("RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00")
	case "audio/wav":
		b.WriteString("RIFF\x24\x00\x00\x00WAVEfmt ")
	case "audio/mpeg":
		b.WriteString("ID3\x04")
	case "audio/flac":
		b.WriteString("fLaC")
	case "audio/ogg":
		b.WriteString("OggS")
	}
	return b.Bytes()
}

func dataURL(kind string, content []byte) string { return "data:" + kind + ";base64," + b64(content) }

// part is a chat with one content part.
func part(p string) string {
	return `{"messages":[{"role":"user","content":[{"type":"text","text":"what is it?"},` + p + `]}]}`
}

func imageURL(url string) string {
	return part(`{"type":"image_url","image_url":{"url":"` + url + `"}}`)
}

const chat = "/v1/chat/completions"

func TestMediaInTheBody(t *testing.T) {
	p := media(t, nil)
	for _, kind := range p.cfg.MediaTypes {
		for _, body := range []string{imageURL(dataURL(kind, encoded(kind))), imageURL(strings.Replace(dataURL(kind, encoded(kind)), "data:", "DaTa:", 1)),
			part(`{"type":"input_image","image_url":"` + strings.ReplaceAll(dataURL(kind, encoded(kind)), "/", `\/`) + `"}`),
			part(`{"image_url":"` + dataURL(kind, encoded(kind)) + `"}`),
			part(`{"type":"image","source":{"type":"base64","media_type":"` + kind + `","data":"` + b64(encoded(kind)) + `"}}`),
		} {
			got, req, e := apply(t, t.Context(), p, chat, body, seeing)
			if e != nil || got != body {
				t.Errorf("%s: %v, %.200s, want it as it was", kind, e, got)
			}
			if req.PromptTokens < partTokens || req.PromptTokens > partTokens+200 {
				t.Errorf("%s: counted as %d tokens", kind, req.PromptTokens)
			}
		}
	}
	for format, kind := range audioFormats {
		body := part(`{"type":"input_audio","input_audio":{"format":"` + format + `","data":"` + b64(encoded(kind)) + `"}}`)
		if got, _, e := apply(t, t.Context(), p, chat, body, seeing); e != nil || got != body {
			t.Errorf("%s: %v", format, e)
		}
	}
	// The other routes take media, too.
	pic := dataURL("image/png", encoded("image/png"))
	for route, body := range map[string]string{
		"/v1/responses":  `{"input":[{"role":"user","content":[{"type":"input_image","image_url":"` + pic + `"}]}]}`,
		"/v1/embeddings": `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"` + pic + `"}}]}]}`,
		"/v1/rerank":     `{"query":"a","documents":[{"content":[{"type":"image_url","image_url":{"url":"` + pic + `"}}]}]}`,
	} {
		if got, req, e := apply(t, t.Context(), p, route, body, seeing); e != nil || got != body || req.PromptTokens < partTokens {
			t.Errorf("%s: %v, %d tokens", route, e, req.PromptTokens)
		}
	}
}

func TestMediaRefused(t *testing.T) {
	const url, img = "messages[0].content[1].image_url.url", "messages[0].content[1].image_url"
	good := encoded("image/png")
	uuid := part(`{"type":"image_url","image_url":{"url":"` + dataURL("image/png", good) + `"},"uuid":"another's"}`)
	p := media(t, nil)
	for _, tt := range []struct{ name, body, param, code string }{
		{"file", imageURL("file:///etc/passwd"), url, openai.CodeMedia},
		{"file in capitals", imageURL("FILE:///etc/passwd"), url, openai.CodeMedia},
		{"path", imageURL("/etc/passwd"), url, openai.CodeMedia},
		{"relative path", imageURL("../../secret.png"), url, openai.CodeMedia},
		{"nothing", imageURL(""), url, openai.CodeMedia},
		{"https", imageURL("https://example.com/a.png"), url, openai.CodeMedia},
		{"http", imageURL("http://169.254.169.254/latest/meta-data"), url, openai.CodeMedia},
		{"no scheme", imageURL("//example.com/a.png"), url, openai.CodeMedia},
		{"ftp", imageURL("ftp://example.com/a.png"), url, openai.CodeMedia},
		{"gopher", imageURL("gopher://10.0.0.1:6379/_x"), url, openai.CodeMedia},
		{"scheme behind a space", imageURL(" data:image/png;base64,AAAA"), url, openai.CodeMedia},
		{"scheme behind a tab", imageURL(`\tfile:///etc/passwd`), url, openai.CodeMedia},
		{"escaped scheme", imageURL(`\u0066ile:///etc/passwd`), url, openai.CodeMedia},
		{"escaped name", part(`{"type":"image_url","image\u005furl":{"url":"file:///etc/passwd"}}`), url, openai.CodeMedia},
		{"a number", part(`{"type":"image_url","image_url":{"url":7}}`), url, openai.CodeInvalidValue},
		{"no type", part(`{"image_url":"file:///etc/passwd"}`), img, openai.CodeMedia},
		{"another type", part(`{"type":"text","text":"a","image_url":"file:///etc/passwd"}`), img, openai.CodeMedia},
		{"audio", part(`{"type":"audio_url","audio_url":{"url":"http://a/b"}}`), "messages[0].content[1].audio_url.url", openai.CodeMedia},
		{"video", part(`{"type":"video_url","video_url":{"url":"http://a/b"}}`), "messages[0].content[1].video_url.url", openai.CodeMedia},
		{"video in the body", part(`{"type":"video_url","video_url":{"url":"data:video/mp4;base64,AAAAGGZ0eXA="}}`), "messages[0].content[1].video_url.url", openai.CodeMedia},
		{"a file's address", part(`{"type":"input_file","file_url":"https://a/b.pdf"}`), "messages[0].content[1].file_url", openai.CodeMedia},
		{"source", part(`{"type":"image","source":{"type":"url","url":"https://a/b.png"}}`), "messages[0].content[1].source.url", openai.CodeMedia},
		{"a tool's result", `{"messages":[{"role":"user","content":[{"type":"tool_result","content":[{"type":"image","source":{"type":"url","url":"https://a/b.png"}}]}]}]}`,
			"messages[0].content[0].content[0].source.url", openai.CodeMedia},
		{"media type", imageURL(dataURL("image/tiff", good)), url, openai.CodeMedia},
		{"no media type", imageURL(dataURL("", good)), url, openai.CodeMedia},
		{"vector graphics", imageURL(dataURL("image/svg+xml", []byte("<svg/>"))), url, openai.CodeMedia},
		{"JPEG 2000 by another name", imageURL(dataURL("image/png", []byte("\x00\x00\x00\x0cjP  \r\n\x87\n"))), url, openai.CodeMediaUnreadable},
		{"GIF by another name", imageURL(dataURL("image/png", encoded("image/gif"))), url, openai.CodeMediaUnreadable},
		{"cut picture", imageURL(dataURL("image/png", good[:18])), url, openai.CodeMediaUnreadable},
		{"empty picture", imageURL(dataURL("image/png", nil)), url, openai.CodeMediaUnreadable},
		{"no base64", imageURL("data:image/png,abc"), url, openai.CodeMediaUnreadable},
		{"no comma", imageURL("data:image/png;base64"), url, openai.CodeMediaUnreadable},
		{"wrong alphabet", imageURL("data:image/png;base64,iVBO-_=="), url, openai.CodeMediaUnreadable},
		{"space in base64", imageURL("data:image/png;base64,iVBO Rw="), url, openai.CodeMediaUnreadable},
		{"no padding", imageURL("data:image/png;base64,iVBORw"), url, openai.CodeMediaUnreadable},
		{"padding inside", imageURL("data:image/png;base64,iV==ORw="), url, openai.CodeMediaUnreadable},
		{"large", imageURL(dataURL("image/png", append(bytes.Clone(good), make([]byte, 1<<16)...))), url, openai.CodeLimit},
		{"points", imageURL(dataURL("image/png", picture(8001, 8000))), url, openai.CodeLimit},
		{"points beyond 32 bits", imageURL(dataURL("image/png", picture(1<<30, 1<<30))), url, openai.CodeMediaUnreadable},
		{"many", `{"messages":[{"role":"user","content":[` + strings.TrimSuffix(strings.Repeat(`{"type":"image_url","image_url":{"url":"`+dataURL("image/png", good)+`"}},`, 33), ",") + `]}]}`,
			"messages[0].content[32].image_url", openai.CodeLimit},
		{"sources within sources", part(strings.Repeat(`{"source":{"type":"content","content":[`, 6) + strings.Repeat("]}}", 6)), "messages[0].content[1]" + strings.Repeat(".source.content[0]", 5) + ".source", openai.CodeLimit},
		{"format of a sound", part(`{"type":"input_audio","input_audio":{"format":"wav;base64,http://a","data":"AAAA"}}`), "messages[0].content[1].input_audio.format", openai.CodeMedia},
		{"a sound without a format", part(`{"type":"input_audio","input_audio":{"data":"AAAA"}}`), "messages[0].content[1].input_audio.format", openai.CodeMedia},
		{"a sound by another name", part(`{"type":"input_audio","input_audio":{"format":"wav","data":"AAAA"}}`), "messages[0].content[1].input_audio.data", openai.CodeMediaUnreadable},
		{"a sound that is a string", part(`{"type":"input_audio","input_audio":"file:///a"}`), "messages[0].content[1].input_audio", openai.CodeInvalidValue},
		{"tensors of a picture", part(`{"type":"image_embeds","image_embeds":"AAAA"}`), "messages[0].content[1].image_embeds", openai.CodeFieldDenied},
		{"tensors of a sound", part(`{"type":"audio_embeds","audio_embeds":{"a":"AAAA"}}`), "messages[0].content[1].audio_embeds", openai.CodeFieldDenied},
		{"tensors of a prompt", part(`{"type":"prompt_embeds","prompt_embeds":"AAAA","data":"x"}`), "messages[0].content[1].prompt_embeds", openai.CodeFieldDenied},
		{"arguments of a decoder", part(`{"type":"text","text":"a","mm_processor_kwargs":{"x":1}}`), "messages[0].content[1].mm_processor_kwargs", openai.CodeFieldDenied},
		{"name in the cache", uuid, "messages[0].content[1].uuid", openai.CodeFieldDenied},
		{"name in the cache alone", part(`{"type":"image_url","image_url":null,"uuid":"another's"}`), "messages[0].content[1].uuid", openai.CodeFieldDenied},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out, _, e := apply(t, t.Context(), p, chat, tt.body, seeing)
			if e == nil || e.Status != 400 || e.Param != tt.param || e.Code != tt.code || out != "" {
				t.Errorf("got %+v, want 400 %s %s", e, tt.param, tt.code)
			}
			if e != nil && (strings.Contains(e.Message, "passwd") || len(e.Message) > 400) {
				t.Errorf("the message repeats the body: %s", e.Message)
			}
		})
	}
}

// What a tool was called with, or is described by, is no medium; nor is what a
// text model's engine refuses itself.
func TestNoMedia(t *testing.T) {
	p := media(t, nil)
	const url = `{"image_url":"https://a/b.png","source":{"type":"url","url":"https://a"},"uuid":"a"}`
	for _, body := range []string{
		`{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"f","input":` + url + `}]}]}`,
		`{"messages":[{"role":"user","content":"{\"image_url\":\"file:///a\"}"}],"tools":[{"function":{"name":"f","parameters":{"properties":` + url + `}}}]}`,
		`{"messages":[{"role":"user","content":[{"type":"search_result","source":"https://a","title":"b","content":[]}]}]}`,
		`{"messages":[{"role":"user","content":[{"type":"text","text":"a","image_url":null}]}]}`,
	} {
		if got, _, e := apply(t, t.Context(), p, chat, body, seeing); e != nil || got != body {
			t.Errorf("%s: %v", body, e)
		}
	}
	blind := seeing
	blind.Media = false
	if _, _, e := apply(t, t.Context(), p, chat, imageURL("file:///a"), blind); e != nil {
		t.Errorf("an engine without eyes: %v", e)
	}
}

// A route that nobody wrote rules for has all of them.
func TestRoutesWithoutRules(t *testing.T) {
	p := media(t, nil)
	for body, param := range map[string]string{`{"priority":1}`: "priority", `{"n":999}`: "n", `{"input":[{"image_url":"file:///a"}]}`: "input[0].image_url",
		`{"messages":[{"image_url":"file:///a"}]}`: "messages[0].image_url", `{"stop_sequences":7}`: "stop_sequences"} {
		if _, _, e := apply(t, t.Context(), p, "/v1/new", body, seeing); e == nil || e.Param != param {
			t.Errorf("%s: %v", body, e)
		}
	}
}

// The text of a body has its own bound beside its media.
func TestTextAndMediaAreBoundedApart(t *testing.T) {
	p := media(t, nil)
	limits := Limits{TextBytes: 1000, TotalBytes: 1 << 20, Media: true}
	pic := append(encoded("image/png"), make([]byte, 5000)...)
	if _, _, e := apply(t, t.Context(), p, chat, imageURL(dataURL("image/png", pic)), limits); e != nil {
		t.Errorf("a large picture and little text: %v", e)
	}
	body := strings.Replace(imageURL(dataURL("image/png", pic)), "what", strings.Repeat("what ", 200), 1)
	_, _, e := apply(t, t.Context(), p, chat, body, limits)
	if e == nil || e.Status != 413 || e.Code != openai.CodeTooLarge || e.Message != "the body without its media is larger than 1000 bytes; shorten it or raise --max-body-bytes" {
		t.Errorf("much text: %+v", e)
	}
}

func TestFaultsComeTogether(t *testing.T) {
	err := Config{AllowFields: []string{"model"}, MediaTypes: []string{"image/tiff"}, MediaHosts: []string{"https://a/b", "*.com", "a:b", "", "a b", "u@h"},
		MediaNetworks: []string{"10.0.0.1"}}.Faults()
	for _, want := range []string{"max-n: ", "max-prompts: ", "max-tools: ", "max-schema-bytes: ", "max-media-bytes: ", `allow-fields: "model"`,
		`media-types: "image/tiff"`, `"https://a/b"`, `"*.com"`, `"a:b"`, `""`, `"a b"`, `"u@h"`, `media-networks: "10.0.0.1"`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Faults() = %v, want %q in it", err, want)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("New takes a config with faults")
	}
	if err := (Config{MaxN: 1, MaxPrompts: 1, MaxTools: 1, MaxSchemaBytes: 1, MaxMediaBytes: 1, AllowFields: []string{"priority", "chat_template_kwargs"},
		MediaHosts: []string{"a", "A.example:8443", "*.example.com", "http://cdn"}, MediaNetworks: []string{"10.0.0.0/8", "fd00::/8"}}).Faults(); err != nil {
		t.Errorf("Faults() = %v", err)
	}
}

// A body that is made to be slow is passed over about as fast as another.
func BenchmarkHostile(b *testing.B) {
	p := media(b, nil)
	deep := strings.Repeat(`{"source":`, 58) + `"` + strings.Repeat(`\"`, 1<<21) + `"` + strings.Repeat("}", 58)
	for _, bb := range []struct{ name, body string }{
		{"sources", `{"messages":[` + strings.TrimSuffix(strings.Repeat(`{"source":{"type":"a"},"image_url":{"url":null},"b":[1,2,3]},`, 1<<12), ",") + `]}`},
		{"nested", `{"messages":[` + deep + `]}`},
		{"nested urls", strings.ReplaceAll(`{"messages":[`+deep+`]}`, "source", "image_url")},
		{"nested data", `{"messages":[{"input":` + deep + `}]}`},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(bb.body)))
			for b.Loop() {
				_, _, _ = apply(b, b.Context(), p, chat, bb.body, Limits{TextBytes: 8 << 20, TotalBytes: 32 << 20, Media: true})
			}
		})
	}
}
