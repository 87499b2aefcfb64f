package tokenizer

import (
	"bytes"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"strings"
)

// maxID bounds the tables that a hostile file can make us allocate. The
// largest published vocabularies have about 260,000 tokens.
const maxID = 1 << 20

// model is the "model" member of tokenizer.json.
type model struct {
	kind         string
	vocab        map[string]int32
	vocabRead    bool
	merges       []pair // rank is the index
	mergesRead   bool
	unknown      string
	fuseUnknown  bool
	byteFallback bool
	ignoreMerges bool
	dropout      float64
	prefix       string // continuing_subword_prefix
	suffix       string // end_of_word_suffix
}

// read reads the object that comes next.
func (m *model) read(dec *jsontext.Decoder) error {
	var early jsontext.Value // merges that came before the vocabulary
	err := eachMember(dec, func(name string) error {
		switch name {
		case "type":
			if err := json.UnmarshalDecode(dec, &m.kind); err != nil {
				return err
			}
			return m.wantBPE()
		case "vocab":
			return m.readVocab(dec)
		case "merges":
			if !m.vocabRead {
				return keep(&early, dec)
			}
			return m.readMerges(dec)
		case "unk_token":
			return optional(dec, &m.unknown)
		case "fuse_unk":
			return optional(dec, &m.fuseUnknown)
		case "byte_fallback":
			return optional(dec, &m.byteFallback)
		case "ignore_merges":
			return optional(dec, &m.ignoreMerges)
		case "dropout":
			return optional(dec, &m.dropout)
		case "continuing_subword_prefix":
			return optional(dec, &m.prefix)
		case "end_of_word_suffix":
			return optional(dec, &m.suffix)
		}
		return dec.SkipValue()
	})
	if err != nil {
		return err
	}
	if early != nil && m.vocabRead && !m.mergesRead {
		err = m.readMerges(jsontext.NewDecoder(bytes.NewBuffer(early)))
	}
	return errors.Join(err, m.check())
}

// optional reads a value that may be null.
func optional[T any](dec *jsontext.Decoder, v *T) error {
	return json.UnmarshalDecode(dec, v)
}

func (m *model) wantBPE() error {
	if m.kind != "BPE" {
		return fmt.Errorf("model type %q is not supported, only byte-level BPE; choose a model of the GPT-2, Llama 3 or Qwen family", m.kind)
	}
	return nil
}

// check refuses what would silently give other ids.
func (m *model) check() error {
	refuse := func(bad bool, what string) error {
		if !bad {
			return nil
		}
		return fmt.Errorf("model: %s is not supported; choose a model with a byte-level BPE tokenizer", what)
	}
	var missing error
	if !m.vocabRead || !m.mergesRead {
		missing = errors.New("model: vocab and merges are both needed; save the tokenizer again with the fast tokenizer")
	}
	return errors.Join(missing,
		refuse(m.byteFallback, "byte_fallback (a SentencePiece vocabulary)"),
		refuse(m.dropout != 0, "dropout, which makes ids random,"),
		refuse(m.prefix != "", "continuing_subword_prefix"),
		refuse(m.suffix != "", "end_of_word_suffix"))
}

func (m *model) readVocab(dec *jsontext.Decoder) error {
	m.vocabRead = true
	clear(m.vocab)
	return eachMember(dec, func(token string) error {
		v, err := dec.ReadToken()
		if err != nil {
			return err
		}
		if v.Kind() != jsontext.KindNumber {
			return fmt.Errorf("vocab: the id of %q is not a number; fetch the file again", token)
		}
		id, err := v.Uint()
		if err != nil || id >= maxID {
			return fmt.Errorf("vocab: the id %s of %q is not between 0 and %d; fetch the file again", v, token, maxID-1)
		}
		m.vocab[token] = int32(id)
		return nil
	})
}

// readMerges reads ["a b", …], the older form, or [["a", "b"], …]. Lines that
// begin with #version are comments of the older form.
func (m *model) readMerges(dec *jsontext.Decoder) error {
	m.mergesRead = true
	m.merges = make([]pair, 0, len(m.vocab))
	var scratch []byte
	return each(dec, jsontext.KindBeginArray, func() error {
		if dec.PeekKind() == jsontext.KindBeginArray {
			var ab [2]string
			if err := json.UnmarshalDecode(dec, &ab); err != nil {
				return err
			}
			return m.merge(&scratch, ab[0], ab[1])
		}
		v, err := dec.ReadToken()
		if err != nil {
			return err
		}
		s := v.String()
		if strings.HasPrefix(s, "#version") {
			return nil
		}
		a, b, ok := strings.Cut(s, " ")
		if v.Kind() != jsontext.KindString || !ok || strings.Contains(b, " ") {
			return fmt.Errorf("merges: %q is not two tokens with a space between; fetch the file again", s)
		}
		return m.merge(&scratch, a, b)
	})
}

// merge adds the rule a+b.
func (m *model) merge(scratch *[]byte, a, b string) error {
	*scratch = append(append((*scratch)[:0], a...), b...)
	left, okA := m.vocab[a]
	right, okB := m.vocab[b]
	id, ok := m.vocab[string(*scratch)]
	if !okA || !okB || !ok {
		return fmt.Errorf("merges: the rule %q + %q uses a token that is not in vocab; fetch the file again", a, b)
	}
	m.merges = append(m.merges, pair{left: left, right: right, rank: int32(len(m.merges)), id: id})
	return nil
}
