package tokenizer

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
)

// build makes the Tokenizer, or reports every fault of the file at once.
func (f *file) build() (*Tokenizer, error) {
	m := &f.model
	t := &Tokenizer{
		vocab:        m.vocab,
		special:      map[int32]bool{},
		added:        map[string]int32{},
		unknown:      -1,
		fuseUnknown:  m.fuseUnknown,
		ignoreMerges: m.ignoreMerges,
	}
	t.mergers.New = func() any { return new(merger) }
	var errs [5]error
	t.normalize, errs[0] = normalizer(f.normalizer)
	t.stages, errs[1] = preTokenizer(f.preTokenizer)
	t.before, t.after, errs[2] = template(f.postProcessor)
	errs[3] = wantByteLevelDecoder(f.decoder)
	errs[4] = errors.Join(t.setVocab(), t.setBytes(m.unknown))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	if err := t.setAdded(f.added); err != nil {
		return nil, err
	}
	for _, id := range append(append([]int32(nil), t.before...), t.after...) {
		if t.Token(id) == "" {
			return nil, fmt.Errorf("post_processor: the template's id %d is not a token; fetch the file again", id)
		}
	}
	t.rules = newPairTable(m.merges)
	return t, nil
}

// setVocab lists the tokens by id.
func (t *Tokenizer) setVocab() error {
	top := int32(-1)
	for _, id := range t.vocab {
		top = max(top, id)
	}
	t.tokens = make([]string, top+1)
	for token, id := range t.vocab {
		if token == "" {
			continue
		}
		if had := t.tokens[id]; had != "" {
			return fmt.Errorf("vocab: %q and %q share the id %d; fetch the file again", min(had, token), max(had, token), id)
		}
		t.tokens[id] = token
	}
	return nil
}

// setBytes finds the tokens of single bytes, where all merging begins.
func (t *Tokenizer) setBytes(unknown string) error {
	complete := true
	for b, c := range byteAlphabet().char {
		id, ok := t.vocab[string(c)]
		if !ok {
			id, complete = -1, false
		}
		t.byteIDs[b] = id
	}
	if unknown == "" || complete {
		return nil
	}
	id, ok := t.vocab[unknown]
	if !ok {
		return fmt.Errorf("model: unk_token %q is not in vocab; fetch the file again", unknown)
	}
	t.unknown = id
	return nil
}

// setAdded reads added_tokens. Their ids are not free: a token of the
// vocabulary keeps its id there, and the others follow its end in order. The
// original only warns about a file that says otherwise and then uses other
// ids than the file says; such a file is refused.
func (t *Tokenizer) setAdded(v jsontext.Value) error {
	var list []addedToken
	if len(v) > 0 && v.Kind() != jsontext.KindNull {
		if err := json.Unmarshal(v, &list); err != nil {
			return fmt.Errorf("added_tokens: %w; fetch the file again", err)
		}
	}
	next := int32(len(t.vocab))
	latest := map[int32]*addedToken{}
	var order []int32
	for i := range list {
		tok := &list[i]
		if tok.Content == "" {
			continue
		}
		want, ok := t.ID(tok.Content)
		if !ok {
			want = next
			next++
		}
		if tok.ID != want {
			return fmt.Errorf("added_tokens: %q has id %d where %d follows from the vocabulary; save the tokenizer again", tok.Content, tok.ID, want)
		}
		if err := t.place(want, tok.Content); err != nil {
			return err
		}
		t.added[tok.Content] = want
		if latest[want] == nil {
			order = append(order, want)
		} else if latest[want].Special {
			t.special[want] = true
		}
		latest[want] = tok
	}
	for _, id := range order {
		if err := t.match(latest[id]); err != nil {
			return fmt.Errorf("added_tokens: %q: %w; save the tokenizer again", latest[id].Content, err)
		}
	}
	return nil
}

// place puts an added token into the list by id.
func (t *Tokenizer) place(id int32, content string) error {
	if int(id) >= len(t.tokens) {
		t.tokens = append(t.tokens, make([]string, int(id)+1-len(t.tokens))...)
	}
	if had := t.tokens[id]; had != "" && had != content {
		return fmt.Errorf("added_tokens: %q and %q share the id %d; save the tokenizer again", had, content, id)
	}
	t.tokens[id] = content
	return nil
}

// match makes Encode find tok.
func (t *Tokenizer) match(tok *addedToken) error {
	m := &t.raw
	if tok.Normalized {
		m = &t.normalized
		// The original decodes such a token to its normalised text, and then
		// no longer knows that it was special.
		if t.normalize != nil && t.normalize(tok.Content) != tok.Content {
			return errors.New("text that the normalizer changes is not supported")
		}
	}
	if tok.Special {
		t.special[tok.ID] = true
	}
	return m.add(tok)
}
