package tokenizer

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// addedToken is an entry of added_tokens: text that is cut out of the input
// before anything else looks at it.
type addedToken struct {
	ID         int32  `json:"id"`
	Content    string `json:"content"`
	SingleWord bool   `json:"single_word"`
	LStrip     bool   `json:"lstrip"`
	RStrip     bool   `json:"rstrip"`
	Normalized bool   `json:"normalized"`
	Special    bool   `json:"special"`
}

// matcher finds the longest added token at the leftmost place, with a byte
// trie, so that hostile text costs at most its length times the longest token.
type matcher struct {
	nodes []matchNode
}

type matchNode struct {
	token *addedToken
	bytes []byte // the edges, beside the nodes that they lead to
	next  []int32
}

func (n *matchNode) child(b byte) int32 {
	for i, e := range n.bytes {
		if e == b {
			return n.next[i]
		}
	}
	return 0
}

// add makes the matcher find tok. Two tokens cannot share a text.
func (m *matcher) add(tok *addedToken) error {
	if m.nodes == nil {
		m.nodes = make([]matchNode, 1)
	}
	at := int32(0)
	for i := range len(tok.Content) {
		b := tok.Content[i]
		next := m.nodes[at].child(b)
		if next == 0 {
			next = int32(len(m.nodes))
			m.nodes = append(m.nodes, matchNode{})
			m.nodes[at].bytes = append(m.nodes[at].bytes, b)
			m.nodes[at].next = append(m.nodes[at].next, next)
		}
		at = next
	}
	if other := m.nodes[at].token; other != nil {
		return fmt.Errorf("its text is also that of token %d", other.ID)
	}
	m.nodes[at].token = tok
	return nil
}

// find returns the first token in s at or after from, and where it begins.
func (m *matcher) find(s string, from int) (*addedToken, int) {
	root := &m.nodes[0]
	for i := from; i < len(s); i++ {
		at := root.child(s[i])
		if at == 0 {
			continue
		}
		found := m.nodes[at].token
		for k := i + 1; k < len(s); k++ {
			if at = m.nodes[at].child(s[k]); at == 0 {
				break
			}
			if tok := m.nodes[at].token; tok != nil {
				found = tok
			}
		}
		if found != nil {
			return found, i
		}
	}
	return nil, len(s)
}

// each calls text and token for the parts of s in order. With plain set,
// special tokens are text. The order of the rules and their quirks are those
// of find_matches in Hugging Face tokenizers, added_vocabulary.rs.
func (m *matcher) each(s string, plain bool, text func(string), token func(int32)) {
	if m.nodes == nil {
		if s != "" {
			text(s)
		}
		return
	}
	done, from := 0, 0
	for {
		tok, start := m.find(s, from)
		if tok == nil {
			break
		}
		end := start + len(tok.Content)
		from = end
		if plain && tok.Special || tok.SingleWord && !standsAlone(s, start, end) {
			continue
		}
		if tok.LStrip && done < start {
			start = done + len(strings.TrimRightFunc(s[done:start], unicode.IsSpace))
		}
		if tok.RStrip {
			end = len(s) - len(strings.TrimLeftFunc(s[end:], unicode.IsSpace))
		}
		if done < start {
			text(s[done:start])
		}
		token(tok.ID)
		done = end
	}
	if done < len(s) {
		text(s[done:])
	}
}

// standsAlone reports whether no word character touches s[start:end].
func standsAlone(s string, start, end int) bool {
	before, n := utf8.DecodeLastRuneInString(s[:start])
	if n > 0 && isWord(before) {
		return false
	}
	after, n := utf8.DecodeRuneInString(s[end:])
	return n == 0 || !isWord(after)
}

// isWord is \w of Rust's regex crate: UTS 18, annex C.
func isWord(r rune) bool {
	return unicode.In(r, unicode.L, unicode.M, unicode.Nd, unicode.Nl, unicode.Pc,
		unicode.Other_Alphabetic, unicode.Join_Control)
}
