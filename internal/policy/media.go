package policy

import (
	"bytes"
	"net/url"

	"infer/internal/openai"
)

// medium is a picture or a sound in a body.
type medium struct {
	param string
	value openai.Value // the string that holds it, or its address
	fetch *url.URL     // nil when the body holds it
}

// messages bounds a conversation, which some protocols allow to be one string.
func messages(p *Policy, c *call, param string, v openai.Value) *openai.Error {
	return p.content(c, param, v, maxMessages, "")
}

// inputs bounds what an encoder gets, which may be text, ids, or content parts.
func inputs(p *Policy, c *call, param string, v openai.Value) *openai.Error {
	if e := prompts(p, c, param, v); e != nil {
		return e
	}
	return content(p, c, param, v)
}

// content bounds what is part of a prompt besides.
func content(p *Policy, c *call, param string, v openai.Value) *openai.Error {
	return p.content(c, param, v, maxParts, "")
}

// mediaNames are the members that are, or hold, a medium, or name one. vLLM looks
// at the names more than at the type of a part, so that the type is not asked
// here: a part without one, or with another, is read all the same.
var mediaNames = []string{"image_url", "audio_url", "video_url", "file_url", "input_audio", "source", "uuid",
	"image_embeds", "audio_embeds", "video_embeds", "prompt_embeds", "mm_processor_kwargs", "media_io_kwargs"}

func isMedium(name []byte) bool {
	for _, m := range mediaNames {
		if string(name) == m {
			return true
		}
	}
	return false
}

// content judges the media anywhere within v, and how much it holds. What a
// tool was called with is data that no engine looks into. Whatever a body says,
// it is passed over once.
func (p *Policy) content(c *call, param string, v openai.Value, limit int, flag string) *openai.Error {
	if k := v.Kind(); k != '[' && k != '{' {
		return nil
	}
	var wrong *openai.Error
	wanted := func(name []byte, at openai.Path) bool {
		return c.limits.Media && isMedium(name) && at.Below("input", "arguments", "parameters", "input_schema") == 0
	}
	objects, length := v.Find(wanted, func(m openai.Member, at openai.Path) bool {
		switch {
		case m.Value.Absent():
			return true
		case at.Below(mediaNames...) > maxNested: // each is looked through once more
			wrong = openai.Invalid(param+at.String(), openai.CodeLimit, "%s has media within media, more than %d deep; flatten it (%s)", param, maxNested, raise(""))
			return false
		}
		if wrong = p.medium(c, param, at, m); wrong == nil && len(c.media) > maxMedia {
			wrong = openai.Invalid(param+at.String(), openai.CodeLimit, "the request has more than the %d media allowed; send fewer (%s)", maxMedia, raise(""))
		}
		return wrong == nil
	})
	switch c.parts += objects; {
	case wrong != nil:
		return wrong
	case length > limit:
		return tooMany(param, length, limit, flag)
	case c.parts > maxParts:
		return openai.Invalid(param, openai.CodeLimit, "%s has more than %d parts; send fewer (%s)", param, maxParts, raise(""))
	}
	return nil
}

// medium judges one member of a content part.
func (p *Policy) medium(c *call, param string, at openai.Path, m openai.Member) *openai.Error {
	v := m.Value
	switch m.Name {
	case "image_url", "audio_url", "video_url", "file_url":
		param += at.String()
		if v.Kind() == '{' {
			param, v = param+".url", v.Member("url")
		}
		if v.Absent() {
			return nil
		}
		return p.address(c, param, v)
	case "input_audio":
		param += at.String()
		if v.Kind() != '{' {
			return wrongKind(param, "an object", v)
		}
		format := v.Member("format")
		t, ok := audioFormats[format.String()]
		if !ok {
			return openai.Invalid(param+".format", openai.CodeMedia, "%s.format must be wav, mp3, flac or ogg", param)
		}
		return p.bare(c, param+".data", t, v.Member("data"))
	case "source":
		switch v.Member("type").String() {
		case "url":
			return p.address(c, param+at.String()+".url", v.Member("url"))
		case "base64":
			return p.bare(c, param+at.String()+".data", v.Member("media_type").String(), v.Member("data"))
		}
		return nil // of another kind: a search result's, a text's
	case "uuid":
		// The name under which vLLM caches a medium lets one caller have another's.
		if at.Below("content") == 0 {
			return nil // a message's, which nobody reads
		}
	}
	return p.denies(param+at.String(), m.Name) // tensors, and arguments of the engine's decoders
}

// audioFormats are the formats of input_audio.
var audioFormats = map[string]string{"wav": "audio/wav", "mp3": "audio/mpeg", "flac": "audio/flac", "ogg": "audio/ogg"}

// address judges a URL: the body holds the medium, or we fetch it, or nobody.
func (p *Policy) address(c *call, param string, v openai.Value) *openai.Error {
	if v.Kind() != '"' {
		return wrongKind(param, "a string", v)
	}
	text := v.Bytes()
	if len(text) >= 5 && bytes.EqualFold(text[:5], []byte("data:")) {
		head, payload, ok := bytes.Cut(text[5:], []byte(","))
		kind, encoded := bytes.CutSuffix(head, []byte(";base64"))
		if !ok || !encoded {
			return openai.Invalid(param, openai.CodeMediaUnreadable, "%s must be data:TYPE;base64,DATA", param)
		}
		if e := p.inspect(param, string(kind), payload); e != nil {
			return e
		}
		c.media = append(c.media, medium{param: param, value: v})
		return nil
	}
	u, e := p.fetcher.allow(param, text)
	if e == nil {
		c.media = append(c.media, medium{param: param, value: v, fetch: u})
	}
	return e
}

// bare judges base64 whose type stands beside it.
func (p *Policy) bare(c *call, param, kind string, v openai.Value) *openai.Error {
	if v.Kind() != '"' {
		return wrongKind(param, "a string", v)
	}
	if e := p.inspect(param, kind, v.Bytes()); e != nil {
		return e
	}
	c.media = append(c.media, medium{param: param, value: v})
	return nil
}
