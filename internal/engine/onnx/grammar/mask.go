package grammar

import (
	"math/bits"
	"slices"
)

// mask is the ids that may come next: a list while they are few, else bits.
type mask struct {
	ids  []int32
	bits []uint64
}

// fewIDs is up to how many ids a mask is a list.
const fewIDs = 512

func (m *mask) bytes() int { return 4*len(m.ids) + 8*len(m.bits) }

// or sets the mask's bits in dst.
func (m *mask) or(dst []uint64) {
	for i, w := range m.bits {
		dst[i] |= w
	}
	for _, id := range m.ids {
		dst[id>>6] |= 1 << (id & 63)
	}
}

// newMask copies dst into its smaller form.
func newMask(dst []uint64) *mask {
	n := 0
	for _, w := range dst {
		n += bits.OnesCount64(w)
	}
	if n > fewIDs {
		return &mask{bits: slices.Clone(dst)}
	}
	ids := make([]int32, 0, n)
	for i, w := range dst {
		for ; w != 0; w &= w - 1 {
			ids = append(ids, int32(i<<6+bits.TrailingZeros64(w)))
		}
	}
	return &mask{ids: ids}
}

// mark sets the bits of the tokens that end at a node.
func (v *Vocabulary) mark(dst []uint64, n int32) {
	for _, id := range v.ids[v.first[n]:v.first[n+1]] {
		dst[id>>6] |= 1 << (id & 63)
	}
}

// masker computes one mask.
type masker struct {
	m    *machine
	v    *Vocabulary
	dst  []uint64
	path []*set // by depth
}

// set adds the tokens that may follow s, without those that end the output.
func (k *masker) set(s *set) {
	rest := make([]item, 0, len(s.items))
	for _, it := range s.items {
		if !k.text(it) {
			rest = append(rest, it)
		}
	}
	switch {
	case len(rest) == len(s.items):
		k.walk(s, 0)
	case len(rest) > 0:
		k.m.reset()
		k.m.items = append(k.m.items, rest...)
		k.walk(k.m.intern(), 0)
	}
}

// text adds the tokens of an item inside a string from what the vocabulary
// remembers about such strings; only tokens that go beyond the string depend
// on the rest of the grammar. It returns false when the item is none such.
func (k *masker) text(it item) bool {
	le := k.m.p.leafs[it.edge]
	t := le.leaf.text
	if t == nil || it.st.p&kindMask == isOpen {
		return false
	}
	after := k.m.after(ret{le.to, it.up})
	if !t.quoted && len(after.items) > 0 {
		return false // it could end after any character
	}
	tm := k.v.textMask(t, it.st)
	tm.within.or(k.dst)
	if len(after.items) > 0 {
		for _, n := range tm.exits {
			k.walk(after, n)
		}
	}
	return true
}

// walk adds the tokens below node n, of which s has read the bytes.
func (k *masker) walk(s *set, n int32) {
	v, base := k.v, k.v.depth[n]
	k.path = append(k.path[:0], s)
	for i, end := n+1, v.skip[n]; i < end; {
		d := v.depth[i] - base
		next := k.m.step(k.path[d-1], v.byteOf[i])
		if next == dead {
			i = v.skip[i]
			continue
		}
		v.mark(k.dst, i)
		k.path = append(k.path[:d], next)
		i++
	}
}
