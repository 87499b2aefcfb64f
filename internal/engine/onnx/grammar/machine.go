package grammar

import (
	"cmp"
	"hash/maphash"
	"slices"
	"sync"
)

// machine runs a program. It makes the states of a deterministic automaton
// when they are first needed and keeps a bounded number of them, for all
// matchers of the grammar.
type machine struct {
	p *program

	mu     sync.Mutex
	seed   maphash.Seed
	lastID uint64
	frames map[uint64][]*frame
	sets   map[uint64][]*set
	kept   []*set
	masks  int // bytes of the masks in kept
	begin  *set

	// Scratch of closure.
	items    []item
	complete bool
	work     []ret
	seen     map[ret]struct{}
	calls    []pending
}

// A set and its relatives may be made anew after forget, so that equal ones
// exist twice; that costs time, never correctness.
const (
	maxSets      = 4096
	maxMaskBytes = 8 << 20 // of the masks that one grammar keeps
)

// frame is where a called rule returns to: one place for each caller. The nil
// frame is the end of the output.
type frame struct {
	id   uint64
	rets []ret
}

type ret struct {
	node int32
	up   *frame
}

// item is one way to read the output so far: inside a leaf, with a stack.
type item struct {
	edge int32 // number of the leaf
	st   state
	up   *frame
}

// set is all ways to read the output so far.
type set struct {
	items    []item
	complete bool           // the output may end here
	next     *[16]*[16]*set // by the halves of a byte
	mask     *mask
	maskOf   *Vocabulary
}

// dead is the set without ways; it marks a byte that may not follow.
var dead = &set{}

type pending struct {
	rule int32
	rets []ret
}

func newMachine(p *program) *machine {
	return &machine{p: p, seed: maphash.MakeSeed(), seen: map[ret]struct{}{},
		frames: map[uint64][]*frame{}, sets: map[uint64][]*set{}}
}

func frameID(f *frame) uint64 {
	if f == nil {
		return 0
	}
	return f.id
}

func compareRets(a, b ret) int {
	return cmp.Or(cmp.Compare(a.node, b.node), cmp.Compare(frameID(a.up), frameID(b.up)))
}

func compareItems(a, b item) int {
	return cmp.Or(cmp.Compare(a.edge, b.edge), a.st.compare(b.st), cmp.Compare(frameID(a.up), frameID(b.up)))
}

// start returns the set before the first byte.
func (m *machine) start() *set {
	if m.begin == nil {
		m.reset()
		m.call(m.p.root, ret{node: -1})
		if m.p.rules[m.p.root].nullable {
			m.complete = true
		}
		m.begin = m.closure()
	}
	return m.begin
}

// step returns the set after b, or dead.
func (m *machine) step(s *set, b byte) *set {
	if s.next != nil {
		if half := s.next[b>>4]; half != nil && half[b&15] != nil {
			return half[b&15]
		}
	}
	next := m.advance(s.items, b) // may forget s.next
	if s.next == nil {
		s.next = new([16]*[16]*set)
	}
	if s.next[b>>4] == nil {
		s.next[b>>4] = new([16]*set)
	}
	s.next[b>>4][b&15] = next
	return next
}

func (m *machine) advance(items []item, b byte) *set {
	m.reset()
	for _, it := range items {
		l := &m.p.leafs[it.edge]
		st, ok := l.leaf.step(it.st, b)
		if !ok {
			continue
		}
		if l.leaf.extends(st) {
			m.items = append(m.items, item{it.edge, st, it.up})
		}
		if l.leaf.accepts(st) {
			m.work = append(m.work, ret{l.to, it.up})
		}
	}
	return m.closure()
}

// after returns the set at a node with a stack.
func (m *machine) after(r ret) *set {
	m.reset()
	m.work = append(m.work, r)
	return m.closure()
}

func (m *machine) reset() {
	m.items, m.work, m.calls, m.complete = m.items[:0], m.work[:0], m.calls[:0], false
	clear(m.seen)
}

// closure follows what needs no byte. First all returns, so that every caller
// of a rule is known; then the calls, callers before the called, so that one
// frame holds all of them and ambiguity does not multiply.
func (m *machine) closure() *set {
	for len(m.work) > 0 {
		r := m.work[len(m.work)-1]
		m.work = m.work[:len(m.work)-1]
		m.expand(r, false)
	}
	for len(m.calls) > 0 {
		c := m.calls[0]
		m.calls = slices.Delete(m.calls, 0, 1)
		m.work = append(m.work, ret{m.p.rules[c.rule].start, m.frame(c.rets)})
		for len(m.work) > 0 {
			r := m.work[len(m.work)-1]
			m.work = m.work[:len(m.work)-1]
			m.expand(r, true)
		}
	}
	return m.intern()
}

// expand follows the edges of a node that need no byte. A rule that was just
// entered does not return: its caller has skipped it already.
func (m *machine) expand(r ret, entered bool) {
	if _, ok := m.seen[r]; ok {
		return
	}
	m.seen[r] = struct{}{}
	if r.node < 0 {
		m.complete = true
		return
	}
	n := &m.p.nodes[r.node]
	for _, e := range n.edges {
		switch {
		case e.leaf >= 0:
			m.items = append(m.items, item{e.leaf, m.p.leafs[e.leaf].leaf.start(), r.up})
		case e.rule >= 0:
			m.call(e.rule, ret{e.to, r.up})
			if m.p.rules[e.rule].nullable {
				m.work = append(m.work, ret{e.to, r.up})
			}
		default:
			m.work = append(m.work, ret{e.to, r.up})
		}
	}
	if n.end && !entered {
		m.work = append(m.work, r.up.rets...)
	}
}

// call notes a caller of rule, in the order of the ranks.
func (m *machine) call(rule int32, r ret) {
	rank := m.p.rules[rule].rank
	at, ok := slices.BinarySearchFunc(m.calls, rank, func(c pending, rank int32) int {
		return cmp.Compare(m.p.rules[c.rule].rank, rank)
	})
	if !ok {
		m.calls = slices.Insert(m.calls, at, pending{rule: rule})
	}
	m.calls[at].rets = append(m.calls[at].rets, r)
}

// frame returns the one frame with these returns.
func (m *machine) frame(rets []ret) *frame {
	slices.SortFunc(rets, compareRets)
	rets = slices.Compact(rets)
	var h maphash.Hash
	h.SetSeed(m.seed)
	for _, r := range rets {
		maphash.WriteComparable(&h, r)
	}
	key := h.Sum64()
	for _, f := range m.frames[key] {
		if slices.Equal(f.rets, rets) {
			return f
		}
	}
	m.lastID++
	f := &frame{m.lastID, rets}
	m.frames[key] = append(m.frames[key], f)
	return f
}

// intern returns the one set of the items in scratch.
func (m *machine) intern() *set {
	slices.SortFunc(m.items, compareItems)
	items := slices.Compact(m.items)
	if len(items) == 0 && !m.complete || m.tooWide(items) {
		return dead
	}
	var h maphash.Hash
	h.SetSeed(m.seed)
	maphash.WriteComparable(&h, m.complete)
	for _, it := range items {
		maphash.WriteComparable(&h, it)
	}
	key := h.Sum64()
	for _, s := range m.sets[key] {
		if s.complete == m.complete && slices.Equal(s.items, items) {
			return s
		}
	}
	if len(m.kept) >= maxSets {
		m.forget()
	}
	s := &set{items: slices.Clone(items), complete: m.complete}
	m.sets[key] = append(m.sets[key], s)
	m.kept = append(m.kept, s)
	return s
}

// tooWide reports whether there are more items than maxWidth allows.
func (m *machine) tooWide(items []item) bool {
	if len(items) <= maxWidth/textWidth {
		return false
	}
	width := 0
	for _, it := range items {
		width++
		if m.p.leafs[it.edge].leaf.text != nil {
			width += textWidth - 1
		}
	}
	return width > maxWidth
}

// forget lets go of every set. Matchers keep those they stand on, without what
// was remembered there.
func (m *machine) forget() {
	m.dropMasks()
	for _, s := range m.kept {
		s.next = nil
	}
	m.kept, m.begin = nil, nil
	clear(m.sets)
	clear(m.frames)
}

func (m *machine) dropMasks() {
	for _, s := range m.kept {
		s.mask, s.maskOf = nil, nil
	}
	m.masks = 0
}
