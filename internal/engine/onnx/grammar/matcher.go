package grammar

import (
	"errors"
	"fmt"
)

// ErrDeadEnd is returned by Mask when the vocabulary has no token for any text
// that may follow. It cannot happen when each of the 256 bytes is a token.
var ErrDeadEnd = errors.New("grammar: no token of the vocabulary may follow")

// Matcher follows one output token by token. It is used by one goroutine at a
// time; matchers of one grammar may run at once.
type Matcher struct {
	g     *Grammar
	v     *Vocabulary
	at    *set
	ended bool // an end-of-sequence token was taken
}

// NewMatcher returns a Matcher before the first token.
func NewMatcher(g *Grammar, v *Vocabulary) *Matcher {
	m := &Matcher{g: g, v: v}
	if g.err == nil {
		g.m.mu.Lock()
		defer g.m.mu.Unlock()
		m.at = g.m.start()
	}
	return m
}

// Mask sets bit i of bits exactly when token i may come next: an
// end-of-sequence token when the output so far is complete, another when some
// valid output begins with what it leads to. bits holds at least
// Vocabulary.Size bits; those beyond are cleared.
func (m *Matcher) Mask(bits []uint64) error {
	if m.g.err != nil {
		return m.g.err
	}
	if len(bits) < m.v.words() {
		return fmt.Errorf("grammar: a mask of %d bits for %d tokens", 64*len(bits), m.v.size)
	}
	clear(bits)
	complete, stuck := m.goOn(bits)
	if complete {
		for _, id := range m.v.eos {
			bits[id>>6] |= 1 << (id & 63)
		}
		stuck = stuck && len(m.v.eos) == 0
	}
	if stuck {
		return ErrDeadEnd
	}
	return nil
}

// goOn sets the bits of the tokens that go on, and reports whether the output is
// complete and whether there is no such token.
func (m *Matcher) goOn(bits []uint64) (complete, stuck bool) {
	m.g.m.mu.Lock()
	defer m.g.m.mu.Unlock() // also when it panics: other outputs share the grammar
	k := m.mask(bits)
	return m.at.complete, len(k.ids)+len(k.bits) == 0
}

// mask sets the bits of the tokens that go on and returns them.
func (m *Matcher) mask(bits []uint64) *mask {
	s := m.at
	if m.ended {
		return &mask{}
	}
	if s.mask != nil && s.maskOf == m.v {
		s.mask.or(bits)
		return s.mask
	}
	dst := bits[:m.v.words()]
	(&masker{m: m.g.m, v: m.v, dst: dst}).set(s)
	k := newMask(dst)
	m.g.m.remember(s, k, m.v)
	return k
}

// remember keeps the mask of s.
func (m *machine) remember(s *set, k *mask, v *Vocabulary) {
	if m.masks += k.bytes() + 64; m.masks > maxMaskBytes {
		m.dropMasks()
	}
	s.mask, s.maskOf = k, v
}

// Advance takes the token that was chosen. An error leaves the matcher as it
// was.
func (m *Matcher) Advance(id int32) error {
	if m.g.err != nil {
		return m.g.err
	}
	if id < 0 || int(id) >= m.v.size {
		return fmt.Errorf("grammar: no token %d", id)
	}
	if m.ended {
		return fmt.Errorf("grammar: token %d after the end", id)
	}
	for _, e := range m.v.eos {
		if e == id {
			if !m.at.complete {
				return fmt.Errorf("grammar: end of sequence (%d) before the output is complete", id)
			}
			m.ended = true
			return nil
		}
	}
	return m.advance(id)
}

func (m *Matcher) advance(id int32) error {
	text := m.v.tokens[id]
	if len(text) == 0 {
		return fmt.Errorf("grammar: token %d has no text", id)
	}
	m.g.m.mu.Lock()
	defer m.g.m.mu.Unlock()
	s := m.at
	for _, b := range text {
		if s = m.g.m.step(s, b); s == dead {
			return fmt.Errorf("grammar: token %d (%q) may not follow", id, text)
		}
	}
	m.at = s
	return nil
}

// Complete reports whether the output so far is a whole match. More may
// follow.
func (m *Matcher) Complete() bool { return m.at != nil && m.at.complete }

// Finished reports whether the output is complete and nothing but the end of
// the sequence may follow.
func (m *Matcher) Finished() bool { return m.ended || m.Complete() && len(m.at.items) == 0 }

// maxForced bounds one answer of Forced.
const maxForced = 256

// Forced returns the bytes that must follow, whatever the model says; none
// when the output may end or the next byte is a choice.
func (m *Matcher) Forced() []byte {
	if m.at == nil || m.ended {
		return nil
	}
	m.g.m.mu.Lock()
	defer m.g.m.mu.Unlock()
	var out []byte
	for s := m.at; len(out) < maxForced && !s.complete; {
		b, ok := m.g.m.only(s)
		if !ok {
			break
		}
		out = append(out, b)
		s = m.g.m.step(s, b)
	}
	return out
}

// only returns the one byte that may follow s, if there is one.
func (m *machine) only(s *set) (only byte, ok bool) {
	for b := range 256 {
		for _, it := range s.items {
			if _, fits := m.p.leafs[it.edge].leaf.step(it.st, byte(b)); fits {
				if ok {
					return 0, false
				}
				only, ok = byte(b), true
				break
			}
		}
	}
	return only, ok
}
