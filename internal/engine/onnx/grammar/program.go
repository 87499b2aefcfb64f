package grammar

import (
	"cmp"
	"errors"
	"slices"
)

// program is a pushdown automaton: rules call each other over a stack, and
// within a rule leaves consume bytes. A node that is the end of its rule pops.
type program struct {
	nodes []node
	rules []rule
	leafs []leafEdge
	root  int32
}

type node struct {
	edges []edge
	end   bool
}

// edge leads to node to: by the leaf with that number, by a call of a rule, or
// by nothing when both are negative.
type edge struct{ leaf, rule, to int32 }

// leafEdge is a leaf and where it leads. Its number names the place in the
// grammar.
type leafEdge struct {
	leaf *leaf
	to   int32
}

type rule struct {
	start, end int32
	nullable   bool
	rank       int32 // callers that call before they consume rank lower
}

// errNothing is that a grammar matches no text at all.
var errNothing = errors.New("grammar: nothing matches")

// builder writes a program. The first limit it exceeds stays in err.
type builder struct {
	program
	err error
}

func (b *builder) node() int32 {
	if len(b.nodes) >= maxNodes {
		b.err = cmp.Or[error](b.err, &TooLargeError{"nodes", maxNodes})
		return 0
	}
	b.nodes = append(b.nodes, node{})
	return int32(len(b.nodes) - 1)
}

func (b *builder) rule() int32 {
	r := rule{start: b.node(), end: b.node()}
	b.nodes[r.end].end = b.err == nil
	b.rules = append(b.rules, r)
	return int32(len(b.rules) - 1)
}

func (b *builder) edge(from int32, e edge) {
	if b.err == nil && len(b.nodes[from].edges) >= maxNodes {
		b.err = &TooLargeError{"edges of a node", maxNodes}
	}
	if b.err == nil {
		b.nodes[from].edges = append(b.nodes[from].edges, e)
	}
}

func (b *builder) leaf(from int32, l *leaf, to int32) {
	if l.extends(l.start()) {
		b.edge(from, edge{int32(len(b.leafs)), -1, to})
		b.leafs = append(b.leafs, leafEdge{l, to})
	}
	if l.accepts(l.start()) {
		b.empty(from, to)
	}
}

func (b *builder) call(from, rule, to int32) { b.edge(from, edge{-1, rule, to}) }
func (b *builder) empty(from, to int32)      { b.edge(from, edge{-1, -1, to}) }

// finish checks and trims the program: every node that is left can reach the
// end of its rule, so that no output leads into a dead end.
func (b *builder) finish(root int32) (*program, error) {
	if b.err != nil {
		return nil, b.err
	}
	p := &b.program
	p.root = root
	_, nullable := p.reach(false)
	nodes, rules := p.reach(true)
	if !rules[root] {
		return nil, errNothing
	}
	for n := range p.nodes {
		p.nodes[n].edges = slices.DeleteFunc(p.nodes[n].edges, func(e edge) bool {
			return !nodes[e.to] || e.rule >= 0 && !rules[e.rule]
		})
	}
	for r := range p.rules {
		p.rules[r].nullable = nullable[r]
	}
	return p, p.rank()
}

// reach returns which nodes can reach the end of their rule, and which rules
// can end at all: with any text, or only with none.
func (p *program) reach(consuming bool) (nodes, rules []bool) {
	type backEdge struct{ from, rule, to int32 }
	nodes, rules = make([]bool, len(p.nodes)), make([]bool, len(p.rules))
	back := make([][]backEdge, len(p.nodes))
	calls := make([][]backEdge, len(p.rules))
	starts := map[int32]int32{}
	for n := range p.nodes {
		for _, e := range p.nodes[n].edges {
			if e.leaf >= 0 && !consuming {
				continue
			}
			be := backEdge{int32(n), e.rule, e.to}
			back[e.to] = append(back[e.to], be)
			if e.rule >= 0 {
				calls[e.rule] = append(calls[e.rule], be)
			}
		}
	}
	var work []int32
	mark := func(n int32) {
		if !nodes[n] {
			nodes[n] = true
			work = append(work, n)
		}
	}
	for r := range p.rules {
		starts[p.rules[r].start] = int32(r)
		mark(p.rules[r].end)
	}
	for len(work) > 0 {
		n := work[len(work)-1]
		work = work[:len(work)-1]
		for _, e := range back[n] {
			if e.rule < 0 || rules[e.rule] {
				mark(e.from)
			}
		}
		if r, ok := starts[n]; ok {
			rules[r] = true
			for _, e := range calls[r] {
				if nodes[e.to] {
					mark(e.from)
				}
			}
		}
	}
	return nodes, rules
}

// rank orders the rules so that whoever calls another rule before consuming a
// byte comes first.
func (p *program) rank() error {
	const unseen, open, done = 0, 1, 2
	mark := make([]byte, len(p.rules))
	rank := int32(len(p.rules))
	var visit func(r int32) error
	visit = func(r int32) error {
		mark[r] = open
		for _, to := range p.entryCalls(r) {
			switch mark[to] {
			case open:
				return errors.New("grammar: a rule begins with itself")
			case unseen:
				if err := visit(to); err != nil {
					return err
				}
			}
		}
		mark[r] = done
		rank--
		p.rules[r].rank = rank
		return nil
	}
	for r := range p.rules {
		if mark[r] == unseen {
			if err := visit(int32(r)); err != nil {
				return err
			}
		}
	}
	return nil
}

// entryCalls returns the rules that r may call before it consumes a byte.
func (p *program) entryCalls(r int32) []int32 {
	var calls []int32
	seen, work := map[int32]bool{}, []int32{p.rules[r].start}
	for len(work) > 0 {
		n := work[len(work)-1]
		work = work[:len(work)-1]
		if seen[n] {
			continue
		}
		seen[n] = true
		for _, e := range p.nodes[n].edges {
			if e.rule >= 0 {
				calls = append(calls, e.rule)
			}
			if e.leaf < 0 && (e.rule < 0 || p.rules[e.rule].nullable) {
				work = append(work, e.to)
			}
		}
	}
	return calls
}

// include copies p into b and returns the rule that stands for it.
func (b *builder) include(p *program) int32 {
	if len(b.nodes)+len(p.nodes) > maxNodes {
		b.err = cmp.Or[error](b.err, &TooLargeError{"nodes", maxNodes})
		return 0
	}
	n, r, l := int32(len(b.nodes)), int32(len(b.rules)), int32(len(b.leafs))
	for _, from := range p.nodes {
		edges := make([]edge, len(from.edges))
		for i, e := range from.edges {
			e.to += n
			if e.rule >= 0 {
				e.rule += r
			}
			if e.leaf >= 0 {
				e.leaf += l
			}
			edges[i] = e
		}
		b.nodes = append(b.nodes, node{edges, from.end})
	}
	for _, le := range p.leafs {
		b.leafs = append(b.leafs, leafEdge{le.leaf, le.to + n})
	}
	for _, from := range p.rules {
		b.rules = append(b.rules, rule{start: from.start + n, end: from.end + n})
	}
	return p.root + r
}
