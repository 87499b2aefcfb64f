package grammar

// objectBody writes the rule of an object.
func (c *compiler) objectBody(r int32, s *objectShape) error {
	w := &objectWriter{c: c, s: s, nodes: map[place]int32{}, afters: map[place]int32{}, ending: c.node(), last: -1}
	for i, m := range s.named {
		if m.required {
			w.last = i
		}
	}
	first := place{lack: s.min}
	opened := c.node()
	c.leaf(c.rules[r].start, openObject, opened)
	c.leaf(opened, gapTree, w.at(first))
	if w.mayEnd(first) {
		c.empty(opened, w.ending)
	}
	for len(w.queue) > 0 && c.err == nil {
		p := w.queue[0]
		w.queue = w.queue[1:]
		if err := c.spend(30); err != nil {
			return err
		}
		w.write(p)
	}
	c.close(w.ending, closeBrace, r)
	return nil
}

// objectWriter writes the nodes of one object.
type objectWriter struct {
	c             *compiler
	s             *objectShape
	nodes, afters map[place]int32
	queue         []place // nodes still to be written
	ending        int32
	last          int // index of the last required member
}

// place is where in an object a member is about to begin. Of all extras only
// one is sure to count for the minimum: their names can repeat.
type place struct {
	next  int // index of the first named member that may follow
	count int // members so far, if there is a maximum
	lack  int // members still needed for the minimum
	extra bool
}

// at returns the node of a place.
func (w *objectWriter) at(p place) int32 {
	n, ok := w.nodes[p]
	if !ok {
		n = w.c.node()
		w.nodes[p] = n
		w.queue = append(w.queue, p)
	}
	return n
}

func (w *objectWriter) mayEnd(p place) bool { return p.next > w.last && p.lack == 0 }

// write adds what may begin at p.
func (w *objectWriter) write(p place) {
	if w.s.max >= 0 && p.count >= w.s.max {
		return
	}
	from, then := w.nodes[p], p
	if w.s.max >= 0 {
		then.count++
	}
	if !p.extra {
		then.lack = max(p.lack-1, 0)
	}
	if p.next < len(w.s.named) {
		m := w.s.named[p.next]
		then.next++
		w.member(from, &leaf{lit: append(appendString(nil, m.name), ':')}, m.value, then)
		if !m.required {
			p.next++
			w.c.empty(from, w.at(p))
		}
		return
	}
	then.extra = true
	for _, e := range w.s.extras {
		name := w.c.node()
		w.c.leaf(from, e.name, name)
		w.member(name, colonLeaf, e.value, then)
	}
}

// member writes the rest of a member, from its name or its colon on.
func (w *objectWriter) member(from int32, name *leaf, value def, then place) {
	colon, space := w.c.node(), w.c.node()
	w.c.leaf(from, name, colon)
	w.c.leaf(colon, spaceLeaf, space)
	w.c.value(space, value, w.after(then))
}

// after returns the node after a member: the end, or a comma and the next.
func (w *objectWriter) after(p place) int32 {
	n, ok := w.afters[p]
	if !ok {
		n = w.c.node()
		w.afters[p] = n
		comma := w.c.node()
		w.c.leaf(n, commaLeaf, comma)
		w.c.leaf(comma, gapTree, w.at(p))
		if w.mayEnd(p) {
			w.c.empty(n, w.ending)
		}
	}
	return n
}
