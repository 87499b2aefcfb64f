package onnx

import "infer/internal/engine/onnx/tokenizer"

// markers are the control tokens whose text must be seen although control
// tokens are left out of an answer: they part thoughts and calls from text.
type markers map[int32]string

func (t *chatTemplate) markers(tok *tokenizer.Tokenizer) markers {
	m := markers{}
	for _, text := range []string{t.calls.open, t.calls.close, t.calls.id, t.calls.headed, thinkOpen, thinkClose} {
		if id, ok := tok.ID(text); ok && text != "" && tok.IsSpecial(id) {
			m[id] = text
		}
	}
	return m
}

// markedDecoder is a decoder that writes markers out.
type markedDecoder struct {
	textDecoder
	markers markers
}

// Add implements textDecoder.
func (d markedDecoder) Add(id int32) string {
	if text, ok := d.markers[id]; ok {
		return d.Flush() + text
	}
	return d.textDecoder.Add(id)
}
