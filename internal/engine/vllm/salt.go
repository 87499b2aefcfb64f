package vllm

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json/jsontext"
	"fmt"
)

// salt keeps the cached prompts of callers apart. vLLM answers sooner when it
// has the beginning of a prompt already, so that whoever guesses another's
// prompt can measure that the guess was right; prompts with different salts
// share nothing (https://docs.vllm.ai/en/latest/design/prefix_caching.html).
// A process has a secret of its own, because nobody shall know the salt of
// another, and a cache seldom outlives the process.
type salt [32]byte

func newSalt() *salt {
	var s salt
	_, _ = rand.Read(s[:]) // never fails
	return &s
}

// of is the salt of one caller. A caller may part its own prompts further with
// a salt of its own, but never take another's.
func (s *salt) of(caller, own string) string {
	h := hmac.New(sha256.New, s[:])
	_, _ = fmt.Fprintf(h, "%d:%s%s", len(caller), caller, own) // a hash takes everything
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// put writes the caller's salt into a body, in the place of the one that the
// client may have sent. The rest stays byte for byte. Without keys there is
// nobody to keep apart, and the client's own holds. A form has no salt, and a
// recording no cache.
func (s *salt) put(body []byte, caller string) []byte {
	open := skipSpace(body, 0)
	if s == nil || caller == "" || open == len(body) || body[open] != '{' {
		return body
	}
	at := member(body, "cache_salt")
	if at.ok() {
		own, err := jsontext.AppendUnquote(nil, at.of(body))
		if err != nil { // null, or what vLLM would refuse
			own = nil
		}
		return splice(body, at.value, at.end, `"`+s.of(caller, string(own))+`"`)
	}
	from := open + 1
	text := `"cache_salt":"` + s.of(caller, "") + `"`
	if next := skipSpace(body, from); next < len(body) && body[next] != '}' {
		text += ","
	}
	return splice(body, from, from, text)
}
