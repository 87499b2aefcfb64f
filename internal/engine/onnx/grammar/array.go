package grammar

// White space that output may hold: one space, or one line break with some
// indentation. It is bounded so that a model cannot write it for ever.
var (
	gapTree   = &leaf{tree: newTree(gaps())}
	spaceLeaf = &leaf{tree: newTree([][]byte{{}, {' '}})}
)

const (
	maxIndentSpaces = 24
	maxIndentTabs   = 6
)

func gaps() [][]byte {
	words := [][]byte{{}, {' '}}
	for indent, most := range map[byte]int{' ': maxIndentSpaces, '\t': maxIndentTabs} {
		line := []byte{'\n'}
		for range most {
			line = append(line, indent)
			words = append(words, append([]byte(nil), line...))
		}
	}
	return append(words, []byte{'\n'})
}

var (
	commaLeaf  = &leaf{lit: []byte(",")}
	colonLeaf  = &leaf{lit: []byte(":")}
	openArray  = &leaf{lit: []byte("[")}
	closeArray = &leaf{lit: []byte("]")}
	openObject = &leaf{lit: []byte("{")}
	closeBrace = &leaf{lit: []byte("}")}
)

// arrayShape is an array's items.
type arrayShape struct {
	first []def // by position
	rest  def   // at every later position
	min   int
	max   int // negative: no bound
}

// array writes the rule of the arrays that f allows.
func (c *compiler) array(r int32, f *flat) error {
	s := arrayShape{min: f.minItems, max: f.maxItems}
	positions := 0
	for _, part := range f.arrays {
		prefix, _ := itemSchemas(part)
		positions = max(positions, len(prefix))
	}
	for i := 0; i <= positions; i++ {
		if err := c.spend(20 + len(f.arrays)); err != nil {
			return err
		}
		var conj []*value
		for _, part := range f.arrays {
			if item := itemSchema(part, i); item != nil {
				conj = append(conj, item)
			}
		}
		d, err := c.def(conj)
		if err != nil {
			return err
		}
		if i == positions {
			s.rest = d
		} else {
			s.first = append(s.first, d)
		}
	}
	c.arrayBody(r, s)
	return nil
}

// itemSchema returns what part demands of the i-th item, nil if nothing.
func itemSchema(part *value, i int) *value {
	prefix, rest := itemSchemas(part)
	if i < len(prefix) {
		return prefix[i]
	}
	return rest
}

// itemSchemas returns what part demands of the first items, each, and of all
// others. Up to draft 2019-09 they were called items and additionalItems.
func itemSchemas(part *value) (prefix []*value, rest *value) {
	items := part.get("items")
	if items != nil && items.kind == '[' {
		return items.items, part.get("additionalItems")
	}
	if p := part.get("prefixItems"); p != nil {
		prefix = p.items
	}
	return prefix, items
}

// arrayBody writes the rule of an array.
func (c *compiler) arrayBody(r int32, s arrayShape) {
	opened, ending := c.node(), c.node()
	c.leaf(c.rules[r].start, openArray, opened)
	item, after := c.node(), c.node()
	c.leaf(opened, gapTree, item)
	if s.min == 0 {
		c.empty(opened, ending)
	}
	for i := 0; c.err == nil && (s.max < 0 || i < s.max); i++ {
		d, loop := s.rest, i >= s.min && i >= len(s.first) && s.max < 0
		if i < len(s.first) {
			d = s.first[i]
		}
		c.value(item, d, after)
		if i+1 >= s.min {
			c.empty(after, ending)
		}
		if !loop {
			item = c.node()
		}
		if i+1 != s.max {
			comma := c.node()
			c.leaf(after, commaLeaf, comma)
			c.leaf(comma, gapTree, item)
		}
		if loop {
			break
		}
		after = c.node()
	}
	c.close(ending, closeArray, r)
}

// close ends an array or object.
func (c *compiler) close(ending int32, bracket *leaf, r int32) {
	gap := c.node()
	c.leaf(ending, gapTree, gap)
	c.leaf(gap, bracket, c.rules[r].end)
}
