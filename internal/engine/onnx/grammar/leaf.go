package grammar

import (
	"bytes"
	"cmp"
	"slices"
)

// leaf is a part of a grammar that needs no stack: exactly one of its fields
// is set. Leaves never change once they are part of a program.
type leaf struct {
	lit  []byte // these bytes
	tree *tree  // one of several byte strings
	text *text  // characters of an automaton
}

// state is how far a leaf has come. Its meaning is the leaf's.
type state struct {
	q, n int32
	p    uint32
}

func (a state) compare(b state) int {
	return cmp.Or(cmp.Compare(a.q, b.q), cmp.Compare(a.n, b.n), cmp.Compare(a.p, b.p))
}

func (l *leaf) start() state {
	if l.text != nil {
		return l.text.start()
	}
	return state{}
}

// step returns the state after b, and false when b may not follow.
func (l *leaf) step(s state, b byte) (state, bool) {
	switch {
	case l.text != nil:
		return l.text.step(s, b)
	case l.tree != nil:
		return l.tree.step(s, b)
	}
	if int(s.q) < len(l.lit) && l.lit[s.q] == b {
		return state{q: s.q + 1}, true
	}
	return s, false
}

// accepts reports whether the leaf may end in s.
func (l *leaf) accepts(s state) bool {
	switch {
	case l.text != nil:
		return l.text.accepts(s)
	case l.tree != nil:
		return l.tree.nodes[s.q].end
	}
	return int(s.q) == len(l.lit)
}

// extends reports whether a byte may follow in s.
func (l *leaf) extends(s state) bool {
	switch {
	case l.text != nil:
		return l.text.extends(s)
	case l.tree != nil:
		return l.tree.nodes[s.q].count > 0
	}
	return int(s.q) < len(l.lit)
}

// tree is a set of byte strings, laid out breadth first so that the children
// of a node lie side by side.
type tree struct{ nodes []treeNode }

type treeNode struct {
	first, count int32 // children
	b            byte  // the byte that leads here
	end          bool
}

// newTree returns the tree of words, which it sorts.
func newTree(words [][]byte) *tree {
	slices.SortFunc(words, bytes.Compare)
	type span struct{ lo, hi, depth int }
	t := &tree{nodes: make([]treeNode, 1)}
	spans := []span{{0, len(words), 0}}
	for i := 0; i < len(t.nodes); i++ {
		s := spans[i]
		for s.lo < s.hi && len(words[s.lo]) == s.depth {
			t.nodes[i].end = true
			s.lo++
		}
		t.nodes[i].first = int32(len(t.nodes))
		for s.lo < s.hi {
			b, hi := words[s.lo][s.depth], s.lo
			for hi < s.hi && words[hi][s.depth] == b {
				hi++
			}
			t.nodes = append(t.nodes, treeNode{b: b})
			spans = append(spans, span{s.lo, hi, s.depth + 1})
			t.nodes[i].count++
			s.lo = hi
		}
	}
	return t
}

func (t *tree) step(s state, b byte) (state, bool) {
	n := t.nodes[s.q]
	at, ok := slices.BinarySearchFunc(t.nodes[n.first:n.first+n.count], b, func(c treeNode, b byte) int {
		return cmp.Compare(c.b, b)
	})
	if !ok {
		return s, false
	}
	return state{q: n.first + int32(at)}, true
}

// wordsLeaf returns the leaf of one or more byte strings.
func wordsLeaf(words [][]byte) *leaf {
	if len(words) == 1 {
		return &leaf{lit: words[0]}
	}
	return &leaf{tree: newTree(words)}
}
