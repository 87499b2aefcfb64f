package serve

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"infer/internal/openai"
)

// Bounds of a form. A recording is bounded as by OpenAI and by vLLM
// (VLLM_MAX_AUDIO_CLIP_FILESIZE_MB).
const (
	maxRecordingBytes = 25 << 20
	maxFieldBytes     = 16 << 10
	maxFields         = 64
	maxFileNameBytes  = 255
)

// formFields are the fields of an audio route besides file, as OpenAI and vLLM
// define them; true for a list, whose field may come more than once.
var formFields = map[string]bool{
	"model": false, "language": false, "to_language": false, "prompt": false, "hotwords": false, "response_format": false,
	"temperature": false, "stream": false, "timestamp_granularities[]": true, "include[]": true,
	"seed": false, "top_p": false, "top_k": false, "min_p": false, "frequency_penalty": false, "presence_penalty": false,
	"repetition_penalty": false, "max_completion_tokens": false,
	"stream_include_usage": false, "stream_continuous_usage_stats": false,
}

// form reads a multipart body and writes it anew: what the engine parses is
// what was checked, however its parser reads what is ambiguous.
type form struct {
	out  bytes.Buffer
	w    *multipart.Writer
	seen []string
	req  openai.Request
}

// understandForm reads the form of an audio route. It has answered when ok is
// false.
func (s *Server) understandForm(_ context.Context, x *exchange, r *http.Request) (body []byte, req openai.Request, ok bool) {
	boundary, e := boundaryOf(r)
	if e == nil {
		body, e = s.read(x, r)
	}
	f := form{req: openai.Request{N: 1, Prompts: 1}}
	if e == nil && !x.gone {
		f.w = multipart.NewWriter(&f.out)
		e = f.read(multipart.NewReader(bytes.NewReader(body), boundary))
	}
	if e == nil && !x.gone {
		x.form = f.w.FormDataContentType()
		x.model, e = serves(s.eng.Status().Models, f.req.Model)
	}
	if e != nil {
		openai.WriteError(x, e)
	}
	return f.out.Bytes(), f.req, e == nil && !x.gone
}

func boundaryOf(r *http.Request) (string, *openai.Error) {
	refuse := func(message string) (string, *openai.Error) {
		return "", &openai.Error{Status: http.StatusUnsupportedMediaType, Type: openai.TypeInvalidRequest,
			Code: openai.CodeMediaType, Message: message}
	}
	if enc := r.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return refuse("compressed bodies are not accepted; send the form without Content-Encoding")
	}
	t, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || t != "multipart/form-data" || params["boundary"] == "" {
		return refuse("the body must be a form with the recording as its file; send Content-Type: multipart/form-data with a boundary")
	}
	return params["boundary"], nil
}

// read takes every part in its order.
func (f *form) read(r *multipart.Reader) *openai.Error {
	broken := openai.Invalid("", openai.CodeInvalidValue, "the body is no whole form; send it again, with the boundary that Content-Type names")
	for {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return broken
		}
		if e := f.part(p, broken); e != nil {
			return e
		}
	}
	if !slices.Contains(f.seen, "file") {
		return openai.Invalid("file", openai.CodeMissingField, "file is missing; send the recording as a part with a file name")
	}
	if f.w.Close() != nil { // the writer is a buffer
		return broken
	}
	return nil
}

// part checks one part and copies it.
func (f *form) part(p *multipart.Part, broken *openai.Error) *openai.Error {
	name, isFile := p.FormName(), p.FileName() != ""
	list, known := formFields[name]
	switch {
	case len(f.seen) == maxFields:
		return openai.Invalid("", openai.CodeLimit, "a form may have %d parts; send fewer", maxFields)
	case name == "file" && !isFile:
		return openai.Invalid("file", openai.CodeInvalidValue, "file must be the recording itself; send it as a part with a file name")
	case name != "file" && !known:
		return openai.Invalid(clip(name, 64), openai.CodeUnsupported, "the form has a field that is not known here, %s; leave it out", strconv.Quote(clip(name, 64)))
	case name != "file" && isFile:
		return openai.Invalid(name, openai.CodeInvalidValue, "%s must be a plain field, not a file", name)
	case !list && slices.Contains(f.seen, name):
		return openai.Invalid(name, openai.CodeInvalidValue, "%s comes twice; send it once", name)
	}
	f.seen = append(f.seen, name)
	if isFile {
		return f.recording(p, broken)
	}
	value, err := io.ReadAll(io.LimitReader(p, maxFieldBytes+1))
	switch {
	case err != nil:
		return broken
	case len(value) > maxFieldBytes:
		return openai.Invalid(name, openai.CodeLimit, "%s is longer than %d bytes; shorten it", name, maxFieldBytes)
	case f.w.WriteField(name, string(value)) != nil:
		return broken
	}
	return f.field(name, string(value))
}

// field takes what the server itself needs to know.
func (f *form) field(name, value string) *openai.Error {
	switch name {
	case "model":
		f.req.Model = value
	case "stream":
		stream, err := strconv.ParseBool(strings.ToLower(value))
		if err != nil {
			return openai.Invalid(name, openai.CodeInvalidValue, "stream must be true or false")
		}
		f.req.Stream = stream
	case "max_completion_tokens":
		n, err := strconv.Atoi(value)
		if err != nil || n < 0 {
			return openai.Invalid(name, openai.CodeInvalidValue, "max_completion_tokens must be a whole number")
		}
		f.req.MaxTokens = n
	}
	return nil
}

// recording copies the file. Its name is for the extension alone, which tells
// the format to some decoders.
func (f *form) recording(p *multipart.Part, broken *openai.Error) *openai.Error {
	name := p.FileName() // without folders
	if len(name) > maxFileNameBytes {
		return openai.Invalid("file", openai.CodeLimit, "the name of the file is longer than %d bytes; shorten it", maxFileNameBytes)
	}
	w, err := f.w.CreateFormFile("file", name)
	if err != nil {
		return broken
	}
	n, err := io.Copy(w, io.LimitReader(p, maxRecordingBytes+1))
	switch {
	case err != nil:
		return broken
	case n > maxRecordingBytes:
		return &openai.Error{Status: http.StatusRequestEntityTooLarge, Type: openai.TypeInvalidRequest, Code: openai.CodeTooLarge, Param: "file",
			Message: "the recording is larger than 25 MiB; send it in pieces or compressed as mp3, ogg or flac"}
	case n == 0:
		return openai.Invalid("file", openai.CodeInvalidValue, "the recording is empty")
	}
	return nil
}
