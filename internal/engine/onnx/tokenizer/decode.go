package tokenizer

// Decode returns the text of ids. Ids without a token are left out, as are
// special tokens when skipSpecial is set. Bytes that are not UTF-8 become
// U+FFFD.
func (t *Tokenizer) Decode(ids []int32, skipSpecial bool) string {
	d := t.NewDecoder(skipSpecial)
	var out []byte
	for _, id := range ids {
		out = d.append(out, id)
	}
	return string(out) + d.Flush()
}

// Decoder turns a stream of ids into text that can be sent at once: characters
// whose bytes are spread over several tokens are held back until they are
// complete. The parts add up to what Decode returns. A Decoder serves one
// stream; it is not safe for concurrent use.
type Decoder struct {
	t           *Tokenizer
	skipSpecial bool
	pending     []byte // the beginning of a character
}

// NewDecoder returns a Decoder at the beginning of a stream.
func (t *Tokenizer) NewDecoder(skipSpecial bool) *Decoder {
	return &Decoder{t: t, skipSpecial: skipSpecial}
}

// Add returns the text that id completes, which may be empty.
func (d *Decoder) Add(id int32) string { return string(d.append(nil, id)) }

func (d *Decoder) append(dst []byte, id int32) []byte {
	if d.skipSpecial && d.t.special[id] {
		return dst
	}
	d.pending = d.t.appendToken(d.pending, id)
	dst, rest := appendValid(dst, d.pending)
	d.pending = append(d.pending[:0], rest...)
	return dst
}

// Flush ends the stream: it returns U+FFFD when a character was left
// incomplete, else nothing.
func (d *Decoder) Flush() string {
	if len(d.pending) == 0 {
		return ""
	}
	d.pending = d.pending[:0]
	return replacement
}
