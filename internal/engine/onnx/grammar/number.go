package grammar

import (
	"math"
	"math/big"
	"strings"
)

// A JSON number of unlimited digits would let a model write digits for ever.
// Sixteen and more digits are also rounded by most readers, which could carry
// a number over a bound.
const (
	numberPattern = `-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?`
	digits        = 15
)

// decimal is a non-negative bound in digits.
type decimal struct {
	whole, frac string
	open        bool
	none        bool
}

func newDecimal(b bound) (decimal, error) {
	if b.number == nil {
		return decimal{none: true}, nil
	}
	s := b.number.FloatString(maxDigits)
	whole, frac, _ := strings.Cut(strings.TrimPrefix(s, "-"), ".")
	frac = strings.TrimRight(frac, "0")
	back, _ := new(big.Rat).SetString(s)
	if len(whole) > maxDigits || back.Cmp(b.number) != 0 {
		return decimal{}, &TooLargeError{"digits of a bound", maxDigits}
	}
	return decimal{whole, frac, b.open, false}, nil
}

// numberDFA returns the automaton of plain decimals, or of integers, within
// bounds. It returns nil when there are none.
func numberDFA(b *budget, low, high bound, integer bool) (*dfa, error) {
	if integer {
		low, high = integerBounds(low, high)
	}
	if crossed(low, high) {
		return nil, nil
	}
	d := partition([]rune{'-', '.', '/', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', ':'}, func(r rune) string {
		if r == '-' || r == '.' || '0' <= r && r <= '9' {
			return string(r)
		}
		return ""
	})
	if _, err := d.addState(false); err != nil {
		return nil, err
	}
	zero := new(big.Rat)
	from, to := low, high
	if from.number == nil || from.number.Sign() < 0 {
		from = bound{zero, false}
	}
	if err := (&magnitudes{d: d, b: b, integer: integer, from: 0}).add(from, to); err != nil {
		return nil, err
	}
	minus, err := d.addState(false)
	if err != nil {
		return nil, err
	}
	d.trans[d.classOf('-')] = minus
	from, to = negate(high), negate(low)
	if from.number == nil || from.number.Sign() <= 0 {
		from = bound{zero, true}
	}
	if err := (&magnitudes{d: d, b: b, integer: integer, from: minus}).add(from, to); err != nil {
		return nil, err
	}
	return d.trim(), nil
}

func negate(b bound) bound {
	if b.number != nil {
		b.number = new(big.Rat).Neg(b.number)
	}
	return b
}

// integerBounds keeps integers within 64 bits, which every reader can hold.
func integerBounds(low, high bound) (bound, bound) {
	least, most := new(big.Rat).SetInt64(math.MinInt64), new(big.Rat).SetInt64(math.MaxInt64)
	return tighter(low, bound{least, false}, 1), tighter(high, bound{most, false}, -1)
}

// magnitudes adds the numbers without sign between two bounds to an automaton.
type magnitudes struct {
	d       *dfa
	b       *budget
	integer bool
	from    int32 // the state before the first digit

	low, high   decimal
	whole, frac int // digits allowed
	known       map[magnitude]int32
	queue       []magnitude
}

// magnitude is what is known of a number after some digits: how many of the
// current part there are, and how what they spell compares with the same
// digits of the bounds.
type magnitude struct {
	phase     phase
	n         int
	low, high int
}

type phase int

const (
	inZero  phase = iota // a zero, which no digit follows
	inWhole              // whole digits
	inPoint              // the point
	inFrac               // digits after it
)

func (m *magnitudes) add(low, high bound) (err error) {
	if high.number != nil && high.number.Sign() < 0 {
		return nil
	}
	if m.low, err = newDecimal(low); err != nil {
		return err
	}
	if m.high, err = newDecimal(high); err != nil {
		return err
	}
	m.whole = max(digits, len(m.low.whole), len(m.high.whole))
	m.frac = max(1, digits-max(len(m.low.whole), len(m.high.whole)), len(m.low.frac), len(m.high.frac))
	m.known = map[magnitude]int32{}
	if err := m.digits(m.from, magnitude{phase: inWhole}); err != nil {
		return err
	}
	for len(m.queue) > 0 {
		s := m.queue[0]
		m.queue = m.queue[1:]
		if err := m.expand(m.known[s], s); err != nil {
			return err
		}
	}
	return nil
}

// expand adds the edges of a state.
func (m *magnitudes) expand(q int32, s magnitude) error {
	if err := m.b.spend(50); err != nil {
		return err
	}
	if s.phase == inWhole && s.n < m.whole || s.phase == inPoint || s.phase == inFrac && s.n < m.frac {
		if err := m.digits(q, s); err != nil {
			return err
		}
	}
	if m.integer || s.phase == inPoint || s.phase == inFrac {
		return nil
	}
	next := magnitude{phase: inPoint, low: m.low.wholeOrder(s.n, s.low), high: m.high.wholeOrder(s.n, s.high)}
	return m.edge(q, '.', next)
}

// wholeOrder compares a whole part of n digits that has ended.
func (d decimal) wholeOrder(n, order int) int {
	switch {
	case d.none || n == len(d.whole):
		return order
	case n < len(d.whole):
		return -1
	}
	return 1
}

// digits adds the edges of the ten digits.
func (m *magnitudes) digits(q int32, s magnitude) error {
	for c := byte('0'); c <= '9'; c++ {
		next := magnitude{phase: s.phase, n: s.n + 1}
		switch {
		case s.phase == inPoint:
			next.phase = inFrac
		case s.phase == inWhole && s.n == 0 && c == '0':
			next.phase = inZero
		}
		text := func(d decimal) string {
			if next.phase == inFrac {
				return d.frac
			}
			return d.whole
		}
		next.low = order(s.low, text(m.low), s.n, c)
		next.high = order(s.high, text(m.high), s.n, c)
		if err := m.edge(q, rune(c), next); err != nil {
			return err
		}
	}
	return nil
}

// order compares one more digit, the n-th, after a comparison so far.
func order(sofar int, digits string, n int, c byte) int {
	with := byte('0')
	if n < len(digits) {
		with = digits[n]
	}
	switch {
	case sofar != 0 || c == with:
		return sofar
	case c < with:
		return -1
	}
	return 1
}

func (m *magnitudes) edge(q int32, r rune, to magnitude) error {
	t, ok := m.known[to]
	if !ok {
		var err error
		if t, err = m.d.addState(m.accepts(to)); err != nil {
			return err
		}
		m.known[to] = t
		m.queue = append(m.queue, to)
	}
	m.d.trans[int(q)*m.d.classes+int(m.d.classOf(r))] = t
	return nil
}

// accepts reports whether the number may end here.
func (m *magnitudes) accepts(s magnitude) bool {
	if s.phase == inPoint {
		return false
	}
	low, high := m.low.final(s, s.low), m.high.final(s, s.high)
	return (m.low.none || low > 0 || low == 0 && !m.low.open) && (m.high.none || high < 0 || high == 0 && !m.high.open)
}

// final compares a number that ends in s with the bound.
func (d decimal) final(s magnitude, order int) int {
	read := s.n
	if s.phase != inFrac {
		order, read = d.wholeOrder(s.n, order), 0
	}
	if order == 0 && len(d.frac) > read {
		return -1
	}
	return order
}
