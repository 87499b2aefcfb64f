package grammar

import (
	"encoding/binary"
	"slices"
	"sort"
	"unicode/utf8"
)

// dfa is a deterministic automaton over code points. State 0 is the start. In
// a trimmed one every edge leads to a state from which a match can be reached,
// so that "there is an edge" means "there is a way to finish".
type dfa struct {
	bounds  []rune   // sorted: class[i] is that of [bounds[i], bounds[i+1])
	class   []uint16 // by interval
	ascii   [utf8.RuneSelf]uint16
	classes int
	trans   []int32 // by state × class, -1 is dead
	accept  []bool
	free    []bool // by state of a trimmed one: anything at all may follow
}

// surrogates are no characters: no string and no UTF-8 holds them.
const surrogateMin, surrogateMax = 0xD800, 0xDFFF

// partition cuts the code points at points and gives each interval the class
// of its signature. Surrogates get class 0, which has no edges.
func partition(points []rune, signature func(rune) string) *dfa {
	points = append(points, 0, surrogateMin, surrogateMax+1)
	slices.Sort(points)
	points = slices.Compact(points)
	d := &dfa{classes: 1}
	known := map[string]uint16{}
	for _, p := range points {
		if p > utf8.MaxRune {
			break
		}
		class := uint16(0)
		if p != surrogateMin {
			sig := signature(p)
			c, ok := known[sig]
			if !ok {
				c = uint16(d.classes)
				known[sig] = c
				d.classes++
			}
			class = c
		}
		if n := len(d.class); n == 0 || d.class[n-1] != class {
			d.bounds, d.class = append(d.bounds, p), append(d.class, class)
		}
	}
	for r := range d.ascii {
		d.ascii[r] = d.class[d.interval(rune(r))]
	}
	return d
}

// interval returns the index of the interval that holds r.
func (d *dfa) interval(r rune) int {
	return sort.Search(len(d.bounds), func(i int) bool { return d.bounds[i] > r }) - 1
}

func (d *dfa) classOf(r rune) uint16 {
	if r < utf8.RuneSelf {
		return d.ascii[r]
	}
	return d.class[d.interval(r)]
}

// next returns the state after r, or -1.
func (d *dfa) next(q int32, r rune) int32 {
	if q < 0 {
		return -1
	}
	return d.trans[int(q)*d.classes+int(d.classOf(r))]
}

// any reports whether q has an edge for a code point in [lo, hi].
func (d *dfa) any(q int32, lo, hi rune) bool {
	row := d.trans[int(q)*d.classes:][:d.classes]
	for i := d.interval(lo); i < len(d.bounds) && d.bounds[i] <= hi; i++ {
		if row[d.class[i]] >= 0 {
			return true
		}
	}
	return false
}

func (d *dfa) match(s string) bool {
	q := int32(0)
	for _, r := range s {
		if q = d.next(q, r); q < 0 {
			return false
		}
	}
	return d.accept[q]
}

// addState appends a state without edges and returns it.
func (d *dfa) addState(accept bool) (int32, error) {
	q := len(d.accept)
	if q >= maxStates {
		return 0, &TooLargeError{"states of a string", maxStates}
	}
	if (q+1)*d.classes > maxTable {
		return 0, &TooLargeError{"transitions of a string", maxTable}
	}
	d.accept = append(d.accept, accept)
	for range d.classes {
		d.trans = append(d.trans, -1)
	}
	return int32(q), nil
}

// trim removes the states from which no match can be reached. It returns nil
// when nothing matches.
func (d *dfa) trim() *dfa {
	back := make([][]int32, len(d.accept))
	for i, to := range d.trans {
		if to >= 0 {
			from := int32(i / d.classes)
			if n := len(back[to]); n == 0 || back[to][n-1] != from {
				back[to] = append(back[to], from)
			}
		}
	}
	alive, work := slices.Clone(d.accept), []int32{}
	for q, a := range d.accept {
		if a {
			work = append(work, int32(q))
		}
	}
	for len(work) > 0 {
		q := work[len(work)-1]
		work = work[:len(work)-1]
		for _, from := range back[q] {
			if !alive[from] {
				alive[from] = true
				work = append(work, from)
			}
		}
	}
	if !alive[0] {
		return nil
	}
	return d.keep(alive)
}

// keep drops the states that are not alive.
func (d *dfa) keep(alive []bool) *dfa {
	renamed, n := make([]int32, len(alive)), int32(0)
	for q, a := range alive {
		renamed[q] = -1
		if a {
			renamed[q] = n
			n++
		}
	}
	k := *d
	k.trans, k.accept = nil, nil
	for q, a := range alive {
		if !a {
			continue
		}
		k.accept = append(k.accept, d.accept[q])
		for _, to := range d.trans[q*d.classes:][:d.classes] {
			if to >= 0 {
				to = renamed[to]
			}
			k.trans = append(k.trans, to)
		}
	}
	k.free = make([]bool, n)
	for q := range k.free {
		row := k.trans[q*k.classes:][1:k.classes] // class 0 is that of surrogates
		k.free[q] = k.accept[q] && !slices.ContainsFunc(row, func(to int32) bool { return to != int32(q) })
	}
	return &k
}

// product runs ds side by side and accepts what accept says of their verdicts.
// It returns nil when nothing is accepted.
func product(b *budget, ds []*dfa, accept func([]bool) bool) (*dfa, error) {
	var points []rune
	for _, d := range ds {
		points = append(points, d.bounds...)
	}
	key := make([]byte, 4*len(ds))
	tuples := map[string][]uint16{}
	p := partition(points, func(r rune) string {
		tuple := make([]uint16, len(ds))
		for i, d := range ds {
			tuple[i] = d.classOf(r)
			binary.LittleEndian.PutUint32(key[4*i:], uint32(tuple[i]))
		}
		tuples[string(key)] = tuple
		return string(key)
	})
	reps := p.representatives()
	states := [][]int32{}
	known := map[string]int32{}
	verdicts := make([]bool, len(ds))
	intern := func(qs []int32) (int32, error) {
		for i, q := range qs {
			binary.LittleEndian.PutUint32(key[4*i:], uint32(q))
			verdicts[i] = q >= 0 && ds[i].accept[q]
		}
		if q, ok := known[string(key)]; ok {
			return q, nil
		}
		q, err := p.addState(accept(verdicts))
		known[string(key)] = q
		states = append(states, slices.Clone(qs))
		return q, err
	}
	qs := make([]int32, len(ds))
	if _, err := intern(qs); err != nil {
		return nil, err
	}
	for q := 0; q < len(states); q++ {
		if err := b.spend(p.classes * (4 + len(ds))); err != nil {
			return nil, err
		}
		for class := 1; class < p.classes; class++ {
			for i, d := range ds {
				qs[i] = d.next(states[q][i], reps[class])
			}
			to, err := intern(qs)
			if err != nil {
				return nil, err
			}
			p.trans[q*p.classes+class] = to
		}
	}
	return p.trim(), nil
}

// representatives returns one code point of each class.
func (d *dfa) representatives() []rune {
	reps := make([]rune, d.classes)
	for i, c := range d.class {
		reps[c] = d.bounds[i]
	}
	return reps
}

func all(verdicts []bool) bool { return !slices.Contains(verdicts, false) }

// lengthDFA accepts min to max characters; max < 0 is unbounded.
func lengthDFA(lo, hi int) (*dfa, error) {
	top := hi
	if hi < 0 {
		top = lo
	}
	d := partition(nil, func(rune) string { return "" })
	for n := 0; n <= top; n++ {
		q, err := d.addState(n >= lo)
		if err != nil {
			return nil, err
		}
		if n < top {
			d.trans[int(q)*d.classes+1] = q + 1
		} else if hi < 0 {
			d.trans[int(q)*d.classes+1] = q
		}
	}
	return d, nil
}

// wordsDFA accepts exactly the words.
func wordsDFA(b *budget, words []string) (*dfa, error) {
	var points []rune
	for _, w := range words {
		for _, r := range w {
			points = append(points, r, r+1)
		}
	}
	slices.Sort(points)
	points = slices.Compact(points)
	d := partition(slices.Clone(points), func(r rune) string {
		if _, ok := slices.BinarySearch(points, r); ok {
			return string(r)
		}
		return ""
	})
	if _, err := d.addState(false); err != nil {
		return nil, err
	}
	for _, w := range words {
		q := int32(0)
		for _, r := range w {
			if err := b.spend(4); err != nil {
				return nil, err
			}
			i := int(q)*d.classes + int(d.classOf(r))
			if d.trans[i] < 0 {
				to, err := d.addState(false)
				if err != nil {
					return nil, err
				}
				d.trans[i] = to
			}
			q = d.trans[i]
		}
		d.accept[q] = true
	}
	return d, nil
}
