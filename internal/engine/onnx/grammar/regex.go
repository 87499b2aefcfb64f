package grammar

import (
	"encoding/binary"
	"errors"
	"fmt"
	"regexp/syntax"
	"slices"
	"sort"
	"unicode"
	"unicode/utf8"
)

// matching is how a pattern is meant.
type matching struct {
	search  bool // the pattern matches somewhere in the text, as in JSON Schema
	ecmaDot bool // "." leaves out every line terminator of ECMA-262, not "\n" alone
}

// compileRegex turns a pattern into a trimmed automaton. It returns nil when
// nothing matches.
func compileRegex(b *budget, pattern string, how matching) (*dfa, error) {
	if len(pattern) > maxPatternBytes {
		return nil, &TooLargeError{"bytes of a pattern", maxPatternBytes}
	}
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, patternError(pattern, err)
	}
	if patternSize(re) > maxPatternSize {
		return nil, &TooLargeError{"instructions of a pattern", maxPatternSize}
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return nil, patternError(pattern, err)
	}
	c := &regexCompiler{prog: prog, how: how, b: b, known: map[string]int32{}, mark: make([]int, len(prog.Inst))}
	if err := c.classify(); err != nil {
		return nil, err
	}
	if err := c.run(); err != nil {
		return nil, err
	}
	return c.d.trim(), nil
}

func patternError(pattern string, err error) error {
	var s *syntax.Error
	if errors.As(err, &s) {
		switch s.Code {
		case syntax.ErrInvalidRepeatSize, syntax.ErrLarge, syntax.ErrNestingDepth:
			return &TooLargeError{"repeats of a pattern", 1000}
		case syntax.ErrInvalidPerlOp:
			err = fmt.Errorf("%w: look-around and other (? extensions are not supported", err)
		case syntax.ErrInvalidEscape:
			err = fmt.Errorf("%w: neither back-references nor this escape is supported", err)
		}
	}
	return &PatternError{pattern, err}
}

// patternSize estimates the instructions of re with its repeats written out.
func patternSize(re *syntax.Regexp) int {
	n := 1 + len(re.Rune)
	if re.Op == syntax.OpCharClass {
		n = 2
	}
	for _, sub := range re.Sub {
		n = min(n+patternSize(sub), 1<<30)
	}
	if re.Op == syntax.OpRepeat {
		n = min(n*max(re.Max, re.Min, 1), 1<<30)
	}
	return n
}

// regexCompiler builds the states of an automaton from sets of instructions. A
// state keeps assertions such as \b open until the next character is known.
type regexCompiler struct {
	prog  *syntax.Prog
	how   matching
	b     *budget
	d     *dfa
	reps  []rune
	needs syntax.EmptyOp // the assertions that occur

	sets   []int    // by instruction, the number of its character set
	member [][]bool // by set and class
	states []regexState
	known  map[string]int32
	mark   []int // by instruction, when it was last seen
	now    int
}

type regexState struct {
	pcs  []uint32
	prev rune // stands for the character before, as far as assertions need it
	won  bool // a search has matched: anything may follow
}

// classify collects the character sets and cuts the code points by them.
func (c *regexCompiler) classify() error {
	c.sets = make([]int, len(c.prog.Inst))
	known := map[string]int{}
	var sets [][]rune
	points := []rune{'\n', '\n' + 1}
	for i := range c.prog.Inst {
		in := &c.prog.Inst[i]
		if in.Op == syntax.InstEmptyWidth {
			c.needs |= syntax.EmptyOp(in.Arg)
		}
		set := instRanges(in, c.how.ecmaDot)
		if err := c.b.spend(4 + len(set)); err != nil {
			return err
		}
		if set == nil {
			continue
		}
		key := string(set)
		if _, ok := known[key]; !ok {
			known[key] = len(sets)
			sets = append(sets, set)
			points = append(points, set...)
		}
		c.sets[i] = known[key]
	}
	if c.needs&(syntax.EmptyWordBoundary|syntax.EmptyNoWordBoundary) != 0 {
		points = append(points, '0', '9'+1, 'A', 'Z'+1, '_', '_'+1, 'a', 'z'+1)
	}
	if err := c.b.spend(len(points) * (2 + len(sets))); err != nil {
		return err
	}
	c.d = partition(points, func(r rune) string {
		sig := make([]byte, len(sets)+1)
		for i, set := range sets {
			if inRanges(set, r) {
				sig[i] = 1
			}
		}
		sig[len(sets)] = byte(syntax.EmptyOpContext(r, -1))
		return string(sig)
	})
	c.reps = c.d.representatives()
	for _, set := range sets {
		in := make([]bool, len(c.reps))
		for class, r := range c.reps {
			in[class] = class > 0 && inRanges(set, r)
		}
		c.member = append(c.member, in)
	}
	return nil
}

// instRanges returns what in matches as pairs [lo, hi), or nil.
func instRanges(in *syntax.Inst, ecmaDot bool) []rune {
	const end = utf8.MaxRune + 1
	switch in.Op {
	case syntax.InstRuneAny:
		return []rune{0, end}
	case syntax.InstRuneAnyNotNL:
		if ecmaDot {
			return []rune{0, '\n', '\n' + 1, '\r', '\r' + 1, '\u2028', '\u2029' + 1, end}
		}
		return []rune{0, '\n', '\n' + 1, end}
	case syntax.InstRune, syntax.InstRune1:
	default:
		return nil
	}
	if len(in.Rune) == 1 {
		set := []rune{in.Rune[0], in.Rune[0] + 1}
		if syntax.Flags(in.Arg)&syntax.FoldCase != 0 {
			for r := unicode.SimpleFold(in.Rune[0]); r != in.Rune[0]; r = unicode.SimpleFold(r) {
				set = append(set, r, r+1)
			}
		}
		return set
	}
	set := slices.Clone(in.Rune)
	for i := 1; i < len(set); i += 2 {
		set[i]++
	}
	return set
}

// inRanges reports whether r lies in a set. The ranges of a folded letter are
// few and in no order, those of a class sorted.
func inRanges(set []rune, r rune) bool {
	if len(set) > 16 {
		at := sort.Search(len(set)/2, func(i int) bool { return set[2*i+1] > r })
		return 2*at < len(set) && set[2*at] <= r
	}
	for i := 0; i < len(set); i += 2 {
		if set[i] <= r && r < set[i+1] {
			return true
		}
	}
	return false
}

// run builds the automaton breadth first.
func (c *regexCompiler) run() error {
	c.now++
	start := regexState{pcs: c.follow(nil, uint32(c.prog.Start)), prev: -1}
	if _, err := c.intern(start); err != nil {
		return err
	}
	for q := 0; q < len(c.states); q++ {
		for class := 1; class < c.d.classes; class++ {
			s := c.states[q]
			if err := c.b.spend(8 + 2*len(s.pcs)); err != nil {
				return err
			}
			next, ok := c.step(s, class)
			if !ok {
				continue
			}
			to, err := c.intern(next)
			if err != nil {
				return err
			}
			c.d.trans[q*c.d.classes+class] = to
		}
	}
	return nil
}

// step returns the state after a character of a class.
func (c *regexCompiler) step(s regexState, class int) (regexState, bool) {
	if s.won {
		return s, true
	}
	r := c.reps[class]
	pcs, matched := c.resolve(s, r)
	if c.how.search && matched {
		return regexState{won: true}, true
	}
	next := regexState{prev: c.remember(r)}
	c.now++
	for _, pc := range pcs {
		if c.member[c.sets[pc]][class] {
			next.pcs = c.follow(next.pcs, c.prog.Inst[pc].Out)
		}
	}
	if c.how.search {
		next.pcs = c.follow(next.pcs, uint32(c.prog.Start))
	}
	return next, len(next.pcs) > 0
}

// follow adds pc and what is reached from it without a character. Assertions
// stay open.
func (c *regexCompiler) follow(pcs []uint32, pc uint32) []uint32 {
	stack := []uint32{pc}
	for len(stack) > 0 {
		pc := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if c.mark[pc] == c.now {
			continue
		}
		c.mark[pc] = c.now
		switch in := &c.prog.Inst[pc]; in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			stack = append(stack, in.Arg, in.Out)
		case syntax.InstCapture, syntax.InstNop:
			stack = append(stack, in.Out)
		case syntax.InstFail:
		default:
			pcs = append(pcs, pc)
		}
	}
	return pcs
}

// resolve settles the assertions of s before r (-1 is the end) and returns the
// instructions that take a character, and whether the pattern has matched.
func (c *regexCompiler) resolve(s regexState, r rune) (pcs []uint32, matched bool) {
	flags := syntax.EmptyOpContext(s.prev, r)
	c.now++
	work := slices.Clone(s.pcs)
	for i := 0; i < len(work); i++ {
		switch in := &c.prog.Inst[work[i]]; in.Op {
		case syntax.InstMatch:
			matched = true
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&^flags == 0 {
				work = c.follow(work, in.Out)
			}
		default:
			pcs = append(pcs, work[i])
		}
	}
	slices.Sort(pcs)
	return slices.Compact(pcs), matched
}

// remember returns a character that stands for r in later assertions.
func (c *regexCompiler) remember(r rune) rune {
	switch {
	case c.needs&(syntax.EmptyBeginLine|syntax.EmptyEndLine) != 0 && r == '\n':
		return '\n'
	case c.needs&(syntax.EmptyWordBoundary|syntax.EmptyNoWordBoundary) != 0 && syntax.IsWordChar(r):
		return 'a'
	}
	return ' '
}

// intern returns the number of a state, a new one if need be.
func (c *regexCompiler) intern(s regexState) (int32, error) {
	slices.Sort(s.pcs)
	key := make([]byte, 0, 4*len(s.pcs)+5)
	for _, pc := range s.pcs {
		key = binary.LittleEndian.AppendUint32(key, pc)
	}
	if c.needs != 0 {
		key = binary.LittleEndian.AppendUint32(key, uint32(s.prev))
	}
	if s.won {
		key = append(key[:0], 'w')
	}
	if q, ok := c.known[string(key)]; ok {
		return q, nil
	}
	_, matched := c.resolve(s, -1)
	q, err := c.d.addState(s.won || matched)
	c.known[string(key)] = q
	c.states = append(c.states, s)
	return q, err
}
