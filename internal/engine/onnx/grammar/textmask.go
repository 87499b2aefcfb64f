package grammar

import "slices"

// textKey is what the tokens that may follow in a string depend on. Counts
// beyond the longest token make no difference.
type textKey struct {
	dfa    *dfa
	quoted bool
	q      int32
	p      uint32
	lo, hi int32 // characters that are still needed and still allowed
}

// textMask is the tokens that may follow in a string, those that close it
// included, and the nodes below which tokens go on after its end.
type textMask struct {
	within *mask
	exits  []int32
}

func (m *textMask) bytes() int { return m.within.bytes() + 4*len(m.exits) + 128 }

// textMask returns the textMask of a state of t.
func (v *Vocabulary) textMask(t *text, s state) *textMask {
	far := int32(v.deep + 1)
	key := textKey{dfa: t.dfa, quoted: t.quoted, q: s.q, p: s.p, lo: min(max(t.min-s.n, 0), far), hi: far}
	if t.max >= 0 {
		key.hi = min(t.max-s.n, far)
	}
	if t.dfa != nil && s.q >= 0 && t.dfa.free[s.q] {
		key.dfa, key.q = nil, 0
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.keep(key)
}

// keep returns the textMask of key and remembers it. The caller holds v.mu.
func (v *Vocabulary) keep(key textKey) *textMask {
	tm := v.texts[key]
	if tm != nil {
		return tm
	}
	if key.dfa == nil {
		tm = v.profile(key.quoted, key.p).mask(v, key.lo, key.hi)
	} else {
		tm = v.walkText(key)
	}
	if v.bytes += tm.bytes(); v.bytes > maxTextBytes {
		clear(v.texts)
		v.bytes = tm.bytes()
	}
	v.texts[key] = tm
	return tm
}

// eachText calls visit for each node that may be reached in t from s, with the
// state there, and goes below it when visit returns true.
func (v *Vocabulary) eachText(t *text, s state, visit func(n int32, s state) bool) {
	path := make([]state, v.deep+1)
	path[0] = s
	for i, end := int32(1), v.skip[0]; i < end; {
		d := v.depth[i]
		s, ok := t.step(path[d-1], v.byteOf[i])
		if !ok || !visit(i, s) {
			i = v.skip[i]
			continue
		}
		path[d] = s
		i++
	}
}

// walkText computes what textMask returns for an automaton. Where anything may
// follow, what is below a node is the same as in any string.
func (v *Vocabulary) walkText(key textKey) *textMask {
	tm, dst := &textMask{}, make([]uint64, v.words())
	var base *textMask
	var any []uint64
	t := &text{dfa: key.dfa, quoted: key.quoted, max: -1}
	v.eachText(t, state{q: key.q, p: key.p}, func(n int32, s state) bool {
		if s.p == isDone {
			v.mark(dst, n)
			if v.skip[n] > n+1 {
				tm.exits = append(tm.exits, n)
			}
			return false
		}
		if s.p != inBody || !key.dfa.free[s.q] || v.skip[n] == n+1 {
			v.mark(dst, n)
			return true
		}
		if base == nil {
			base = v.keep(textKey{quoted: key.quoted, p: key.p, hi: int32(v.deep + 1)})
			any = make([]uint64, v.words())
			base.within.or(any)
		}
		v.markBelow(dst, any, n)
		tm.exits = append(tm.exits, between(base.exits, n, v.skip[n])...)
		return false
	})
	tm.within = newMask(dst)
	return tm
}

// markBelow sets the bits of the tokens from node n down that any has.
func (v *Vocabulary) markBelow(dst, any []uint64, n int32) {
	for _, id := range v.ids[v.first[n]:v.first[v.skip[n]]] {
		dst[id>>6] |= any[id>>6] & (1 << (id & 63))
	}
}

// between returns the part of sorted nodes that lies in [lo, hi).
func between(nodes []int32, lo, hi int32) []int32 {
	from, _ := slices.BinarySearch(nodes, lo)
	to, _ := slices.BinarySearch(nodes, hi)
	return nodes[from:to]
}

// profile is all tokens that may follow in a string of any characters, with
// how many characters they begin: from it the masks at every count follow
// without another walk.
type profile struct{ inside, closing []profileNode }

type profileNode struct{ node, chars int32 }

type profileKey struct {
	quoted bool
	p      uint32
}

// maxProfiles bounds the profiles that are kept. Beside the one between
// characters they are small and rare: after part of a character or an escape.
const maxProfiles = 64

// profile returns that of a state. The caller holds v.mu.
func (v *Vocabulary) profile(quoted bool, p uint32) *profile {
	key := profileKey{quoted, p}
	if pr := v.profiles[key]; pr != nil {
		return pr
	}
	pr := &profile{}
	path := make([]int32, v.deep+1) // characters begun, by depth
	t := &text{quoted: quoted, max: int32(v.deep + 2)}
	v.eachText(t, state{p: p}, func(n int32, s state) bool {
		d := v.depth[n]
		switch {
		case s.p == isDone:
			path[d] = path[d-1]
			pr.closing = append(pr.closing, profileNode{n, path[d]})
			return false
		case s.p == inBody:
			path[d] = s.n
		default:
			path[d] = s.n + 1 // one has begun
		}
		if v.first[n] < v.first[n+1] {
			pr.inside = append(pr.inside, profileNode{n, path[d]})
		}
		return true
	})
	if len(v.profiles) >= maxProfiles {
		clear(v.profiles)
	}
	v.profiles[key] = pr
	return pr
}

// mask returns the textMask where lo to hi characters may still begin.
func (pr *profile) mask(v *Vocabulary, lo, hi int32) *textMask {
	tm, dst := &textMask{}, make([]uint64, v.words())
	for _, n := range pr.inside {
		if n.chars <= hi {
			v.mark(dst, n.node)
		}
	}
	for _, n := range pr.closing {
		if lo <= n.chars && n.chars <= hi {
			v.mark(dst, n.node)
			if v.skip[n.node] > n.node+1 {
				tm.exits = append(tm.exits, n.node)
			}
		}
	}
	tm.within = newMask(dst)
	return tm
}
