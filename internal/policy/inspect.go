package policy

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"maps"
	"slices"
	"strings"

	"golang.org/x/image/webp"

	"infer/internal/openai"
)

// magic is how the media that are known here begin. An engine's decoders go by
// the content and not by the type: what is called a PNG and is a JPEG 2000
// would reach a decoder that nobody allowed (CVE-2026-22778).
var magic = map[string]func(head []byte) bool{
	"image/png":  begins("\x89PNG\r\n\x1a\n"),
	"image/jpeg": begins("\xff\xd8\xff"),
	"image/gif":  begins("GIF87a", "GIF89a"),
	"image/webp": riff("WEBP"),
	"audio/wav":  riff("WAVE"),
	"audio/mpeg": begins("ID3", "\xff\xfb", "\xff\xfa", "\xff\xf3", "\xff\xf2"),
	"audio/flac": begins("fLaC"),
	"audio/ogg":  begins("OggS"),
	"video/mp4":  func(head []byte) bool { return len(head) >= 8 && string(head[4:8]) == "ftyp" },
	"video/webm": begins("\x1a\x45\xdf\xa3"),
}

// sizes read the width and height of a picture without decoding it.
var sizes = map[string]func(io.Reader) (image.Config, error){
	"image/png": png.DecodeConfig, "image/jpeg": jpeg.DecodeConfig, "image/gif": gif.DecodeConfig, "image/webp": webp.DecodeConfig,
}

// otherNames are common names of the types above.
var otherNames = map[string]string{
	"image/jpg": "image/jpeg", "audio/x-wav": "audio/wav", "audio/wave": "audio/wav", "audio/vnd.wave": "audio/wav",
	"audio/mp3": "audio/mpeg", "audio/x-flac": "audio/flac", "application/ogg": "audio/ogg", "audio/opus": "audio/ogg",
}

const (
	maxHead = 1 << 20 // bytes of a picture in which its size must stand: what cameras write before it stays below
	maxKind = 64      // bytes of a media type
)

func begins(with ...string) func([]byte) bool {
	return func(head []byte) bool {
		return slices.ContainsFunc(with, func(w string) bool { return bytes.HasPrefix(head, []byte(w)) })
	}
}

func riff(form string) func([]byte) bool {
	return func(head []byte) bool {
		return len(head) >= 12 && string(head[:4]) == "RIFF" && string(head[8:12]) == form
	}
}

func knownTypes() []string { return slices.Sorted(maps.Keys(magic)) }

// allowedType returns the name that a media type has here, if it is allowed.
func (p *Policy) allowedType(kind string) (string, bool) {
	if len(kind) > maxKind {
		return "", false
	}
	kind, _, _ = strings.Cut(strings.ToLower(kind), ";")
	kind = strings.TrimSpace(kind)
	if usual, ok := otherNames[kind]; ok {
		kind = usual
	}
	return kind, slices.Contains(p.cfg.MediaTypes, kind)
}

// inspect judges a medium that is in the body as base64.
func (p *Policy) inspect(param, kind string, encoded []byte) *openai.Error {
	kind, ok := p.allowedType(kind)
	if !ok {
		return p.wrongType(param)
	}
	if n := int64(base64.StdEncoding.DecodedLen(len(encoded))); n > p.cfg.MaxMediaBytes+2 { // of padding
		return p.tooBig(param)
	}
	if len(encoded)%4 != 0 || !isBase64(encoded) {
		return openai.Invalid(param, openai.CodeMediaUnreadable, "%s is not base64 in its standard alphabet, with padding", param)
	}
	return p.genuine(param, kind, base64.NewDecoder(base64.StdEncoding, bytes.NewReader(encoded)))
}

// genuine holds the content to its type, and a picture to its size.
func (p *Policy) genuine(param, kind string, content io.Reader) *openai.Error {
	head := make([]byte, 16)
	n, _ := io.ReadFull(content, head) // a shorter one is judged by what there is
	if head = head[:n]; !magic[kind](head) {
		return openai.Invalid(param, openai.CodeMediaUnreadable, "%s is not what its type says, %s", param, kind)
	}
	size := sizes[kind]
	if size == nil {
		return nil
	}
	c, err := size(io.LimitReader(io.MultiReader(bytes.NewReader(head), content), maxHead))
	if err != nil {
		return openai.Invalid(param, openai.CodeMediaUnreadable, "%s is a broken picture: its size cannot be read", param)
	}
	if float64(c.Width)*float64(c.Height) > maxPixels {
		return openai.Invalid(param, openai.CodeLimit, "%s has %d × %d pixels, more than the %.0f million allowed; scale it down (%s)",
			param, c.Width, c.Height, maxPixels/1e6, raise(""))
	}
	return nil
}

func (p *Policy) wrongType(param string) *openai.Error {
	return openai.Invalid(param, openai.CodeMedia, "%s has a media type that is not allowed; allowed are %s, and --media-types allows others",
		param, strings.Join(p.cfg.MediaTypes, ", "))
}

func (p *Policy) tooBig(param string) *openai.Error {
	return openai.Invalid(param, openai.CodeLimit, "%s is larger than the %d bytes allowed, decoded; scale it down (%s)",
		param, p.cfg.MaxMediaBytes, raise("max-media-bytes"))
}

// isBase64 accepts the standard alphabet and padding at the end.
func isBase64(b []byte) bool {
	b = bytes.TrimSuffix(b, []byte("="))
	b = bytes.TrimSuffix(b, []byte("="))
	for _, c := range b {
		if !alphabet[c] {
			return false
		}
	}
	return true
}

var alphabet = func() (set [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") {
		set[c] = true
	}
	return set
}()
