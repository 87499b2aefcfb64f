package grammar

import (
	"bytes"
	"cmp"
	"slices"
	"sync"
)

// Vocabulary is the tokens of a model as a tree of bytes. It is built once per
// model and shared by all matchers; its methods may be called concurrently.
type Vocabulary struct {
	size   int
	eos    []int32
	tokens [][]byte

	// The tree in depth-first order; node 0 is the root.
	byteOf []byte  // the byte that leads to a node
	depth  []int32 // its distance from the root
	skip   []int32 // the first node after its subtree
	first  []int32 // its tokens are ids[first[n]:first[n+1]]
	ids    []int32
	deep   int // bytes of the longest token

	mu       sync.Mutex
	texts    map[textKey]*textMask
	bytes    int // what texts holds
	profiles map[profileKey]*profile
}

// maxTextBytes bounds the masks of strings that a Vocabulary keeps.
const maxTextBytes = 32 << 20

// NewVocabulary returns the vocabulary whose id i decodes to tokens[i]. Ids
// with no bytes (special and unused ones) are never allowed, and eos only when
// the output is complete. It keeps tokens, which must not change.
func NewVocabulary(tokens [][]byte, eos []int32) *Vocabulary {
	v := &Vocabulary{size: len(tokens), tokens: tokens, texts: map[textKey]*textMask{}, profiles: map[profileKey]*profile{}}
	order := make([]int32, 0, len(tokens))
	for id, t := range tokens {
		if len(t) > 0 && !slices.Contains(eos, int32(id)) {
			order = append(order, int32(id))
			v.deep = max(v.deep, len(t))
		}
	}
	for _, id := range eos {
		if id >= 0 && int(id) < len(tokens) {
			v.eos = append(v.eos, id)
		}
	}
	slices.SortFunc(order, func(a, b int32) int {
		return cmp.Or(bytes.Compare(tokens[a], tokens[b]), cmp.Compare(a, b))
	})
	v.build(order)
	v.textMask(textLeaf.text, state{}) // what nearly every grammar needs first
	return v
}

// build lays out the tree of the tokens in sorted order.
func (v *Vocabulary) build(order []int32) {
	v.byteOf, v.depth, v.first = []byte{0}, []int32{0}, []int32{0}
	var last []byte
	for _, id := range order {
		t := v.tokens[id]
		for i := common(last, t); i < len(t); i++ {
			v.byteOf = append(v.byteOf, t[i])
			v.depth = append(v.depth, int32(i+1))
			v.first = append(v.first, int32(len(v.ids)))
		}
		v.ids = append(v.ids, id)
		last = t
	}
	v.first = append(v.first, int32(len(v.ids)))
	v.skip = make([]int32, len(v.byteOf))
	open := []int32{}
	for n, d := range v.depth {
		for len(open) > 0 && v.depth[open[len(open)-1]] >= d {
			v.skip[open[len(open)-1]] = int32(n)
			open = open[:len(open)-1]
		}
		open = append(open, int32(n))
	}
	for _, n := range open {
		v.skip[n] = int32(len(v.depth))
	}
}

func common(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// Size returns the number of ids; a mask holds at least that many bits.
func (v *Vocabulary) Size() int { return v.size }

// words is the length of a mask.
func (v *Vocabulary) words() int { return (v.size + 63) / 64 }
