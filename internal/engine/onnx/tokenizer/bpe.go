package tokenizer

import (
	"math"
	"math/bits"
	"slices"
)

// pair is a merge rule: left and right become id; lower ranks go first.
type pair struct {
	left, right int32
	rank, id    int32
}

// pairTable finds the rule for two neighbours: a hash table with linear
// probing, at most half full. An empty slot has id -1.
type pairTable struct {
	slots  []pair
	shift  uint
	byRank []int32 // the id that a rank makes
}

// newPairTable holds rules, whose ranks are their indices. A later rule for
// the same pair replaces the earlier one.
func newPairTable(rules []pair) *pairTable {
	log := max(bits.Len(uint(len(rules))*2), 4)
	t := &pairTable{
		slots:  make([]pair, 1<<log),
		shift:  uint(64 - log),
		byRank: make([]int32, len(rules)),
	}
	for i := range t.slots {
		t.slots[i].id = -1
	}
	for i, p := range rules {
		t.byRank[i] = p.id
		t.slots[t.slot(p.left, p.right)] = p
	}
	return t
}

func (t *pairTable) slot(left, right int32) int {
	// Fibonacci hashing: the high bits of the product are well mixed.
	key := uint64(uint32(left))<<32 | uint64(uint32(right))
	i := int(key * 0x9E3779B97F4A7C15 >> t.shift)
	for t.slots[i].id >= 0 && (t.slots[i].left != left || t.slots[i].right != right) {
		i = (i + 1) & (len(t.slots) - 1)
	}
	return i
}

func (t *pairTable) get(left, right int32) *pair { return &t.slots[t.slot(left, right)] }

// symbol is a piece of the word being merged, linked to its neighbours (-1:
// none). One that its left neighbour has taken in has id -1.
type symbol struct{ id, prev, next int32 }

// candidate is a merge that may be done: its rank, then its position.
type candidate uint64

// merger holds the working memory of one encoding goroutine.
type merger struct {
	symbols []symbol
	first   []candidate // of the word as it came, in order
	queue   []candidate // of what merges have made, a 4-ary heap
	text    []byte
}

// maxKept bounds the memory a merger keeps after an enormous word.
const maxKept = 1 << 16

func (m *merger) trim() {
	if cap(m.symbols) > maxKept || cap(m.text) > maxKept {
		*m = merger{}
	}
}

// add appends one more symbol to the word.
func (m *merger) add(id int32) {
	n := int32(len(m.symbols))
	if n > 0 {
		m.symbols[n-1].next = n
	}
	m.symbols = append(m.symbols, symbol{id: id, prev: n - 1, next: -1})
}

// merge applies the rules to the word until none fits, always the one of the
// lowest rank and, among equals, the leftmost. Sorting and the heap keep the
// work for n symbols at O(n log n), however the word was chosen.
func (m *merger) merge(rules *pairTable) {
	m.first, m.queue = m.first[:0], m.queue[:0]
	for i := range len(m.symbols) - 1 {
		if c, ok := m.candidate(rules, int32(i), int32(i+1)); ok {
			m.first = append(m.first, c)
		}
	}
	slices.Sort(m.first)
	for next := 0; ; {
		var top candidate
		switch {
		case next < len(m.first) && (len(m.queue) == 0 || m.first[next] < m.queue[0]):
			top = m.first[next]
			next++
		case len(m.queue) > 0:
			top = m.pop()
		default:
			return
		}
		m.apply(rules, int32(top&math.MaxUint32), rules.byRank[top>>32])
	}
}

// apply merges the symbol at pos with its right neighbour into id, unless they
// have changed since that was planned.
func (m *merger) apply(rules *pairTable, pos, id int32) {
	left := &m.symbols[pos]
	if left.id < 0 || left.next < 0 {
		return
	}
	right := &m.symbols[left.next]
	if rules.get(left.id, right.id).id != id {
		return
	}
	left.id, left.next = id, right.next
	right.id = -1
	if left.next >= 0 {
		m.symbols[left.next].prev = pos
		if c, ok := m.candidate(rules, pos, left.next); ok {
			m.push(c)
		}
	}
	if left.prev >= 0 {
		if c, ok := m.candidate(rules, left.prev, pos); ok {
			m.push(c)
		}
	}
}

// candidate plans the merge of two neighbours if a rule allows it.
func (m *merger) candidate(rules *pairTable, left, right int32) (candidate, bool) {
	rule := rules.get(m.symbols[left].id, m.symbols[right].id)
	return candidate(rule.rank)<<32 | candidate(left), rule.id >= 0
}

func (m *merger) push(c candidate) {
	m.queue = append(m.queue, c)
	q := m.queue
	i := len(q) - 1
	for i > 0 {
		parent := (i - 1) / 4
		if q[parent] <= c {
			break
		}
		q[i] = q[parent]
		i = parent
	}
	q[i] = c
}

// pop removes the first candidate from the heap.
func (m *merger) pop() candidate {
	end := len(m.queue) - 1
	top, c := m.queue[0], m.queue[end]
	q := m.queue[:end]
	m.queue = q
	i := 0
	for {
		child := 4*i + 1
		if child >= end {
			break
		}
		least, at := q[child], child
		for k, v := range q[child+1 : min(child+4, end)] {
			if v < least {
				least, at = v, child+1+k
			}
		}
		if least >= c {
			break
		}
		q[i] = least
		i = at
	}
	if end > 0 {
		q[i] = c
	}
	return top
}
