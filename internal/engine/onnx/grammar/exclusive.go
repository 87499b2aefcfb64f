package grammar

import "slices"

// exclusive reports whether no value can satisfy two of the branches. It errs
// on the side of false.
func (c *compiler) exclusive(branches [][]*flat) bool {
	for i, a := range branches {
		for _, b := range branches[:i] {
			if !c.disjoint(a, b, 4) {
				return false
			}
		}
	}
	return true
}

// disjoint looks depth levels into objects.
func (c *compiler) disjoint(a, b []*flat, depth int) bool {
	for _, x := range a {
		for _, y := range b {
			if c.spend(50) != nil || !c.apart(x, y, depth) {
				return false
			}
		}
	}
	return true
}

// apart reports whether no value satisfies both x and y.
func (c *compiler) apart(x, y *flat, depth int) bool {
	both := x.and(y)
	if both == nil {
		return true
	}
	if both.enum != nil {
		return !slices.ContainsFunc(both.order, func(key string) bool {
			ok, err := c.satisfies(both, both.enum[key])
			return ok || err != nil
		})
	}
	// Ranges and lengths that do not meet.
	noNumber := crossed(both.low, both.high)
	noString := both.maxLength >= 0 && both.maxLength < both.minLength
	noArray := both.maxItems >= 0 && both.maxItems < both.minItems
	left := both.kinds
	if noNumber {
		left &^= kindNumber | kindInteger
	}
	if noString {
		left &^= kindString
	}
	if noArray {
		left &^= kindArray
	}
	return left == 0 || left == kindObject && depth > 0 && (c.tagged(x, y, depth) || c.tagged(y, x, depth))
}

// tagged reports whether x requires a member that y forbids or gives another
// value.
func (c *compiler) tagged(x, y *flat, depth int) bool {
	if slices.ContainsFunc(x.objects, hasPatterns) || slices.ContainsFunc(y.objects, hasPatterns) {
		return false
	}
	for _, name := range x.required {
		inX, errX := c.flatten(memberSchemas(x, name, nil))
		inY, errY := c.flatten(memberSchemas(y, name, nil))
		if errX == nil && errY == nil && c.disjoint(inX, inY, depth-1) {
			return true
		}
	}
	return false
}

func hasPatterns(part *value) bool { return part.get("patternProperties") != nil }
