package grammar

import (
	"context"
	"strings"
	"sync"
)

// anyNumber is the automaton of a number without bounds, integers included.
var anyNumber = sync.OnceValues(func() (*dfa, error) {
	b := newBudget(context.Background())
	number, err := compileRegex(b, numberPattern, matching{})
	if err != nil {
		return nil, err
	}
	integer, err := numberDFA(b, bound{}, bound{}, true)
	if err != nil {
		return nil, err
	}
	return product(b, []*dfa{number, integer}, func(v []bool) bool { return v[0] || v[1] })
})

// formats are those that are enforced. Each pattern describes valid values
// only; where the format's own grammar is larger than what people write, the
// pattern is the common part.
var formats = map[string]func() (*dfa, error){
	"date":      fixedPattern(datePattern),
	"time":      fixedPattern(timePattern),
	"date-time": fixedPattern(datePattern + "T" + timePattern),
	"duration":  fixedPattern(durationPattern),
	"uuid":      fixedPattern(`[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}`),
	"ipv4":      fixedPattern(ipv4Pattern),
	"ipv6":      fixedPattern(ipv6Pattern()),
	"hostname":  fixedPattern(hostPattern),
	"email":     fixedPattern(`[A-Za-z0-9_+-]{1,20}(\.[A-Za-z0-9_+-]{1,20}){0,2}@` + hostPattern),
	"uri":       fixedPattern(`(https?|ftp)://` + hostPattern + `(:[1-9][0-9]{0,3})?(/(` + urlChar + `)*)?(\?(` + urlChar + `)*)?(#(` + urlChar + `)*)?`),
}

const (
	leapYear    = `([0-9][0-9](0[48]|[2468][048]|[13579][26])|([02468][048]|[13579][26])00)`
	datePattern = `([0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))|` +
		leapYear + `-02-29)`
	timePattern     = `([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])`
	durationPattern = `P([0-9]{1,4}W|([0-9]{1,4}Y([0-9]{1,4}M([0-9]{1,4}D)?)?|[0-9]{1,4}M([0-9]{1,4}D)?|[0-9]{1,4}D)(T` +
		durationTime + `)?|T` + durationTime + `)`
	durationTime = `([0-9]{1,4}H([0-9]{1,4}M([0-9]{1,4}S)?)?|[0-9]{1,4}M([0-9]{1,4}S)?|[0-9]{1,4}S)`
	octet        = `(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])`
	ipv4Pattern  = `(` + octet + `\.){3}` + octet
	hostLabel    = `[A-Za-z0-9]([A-Za-z0-9-]{0,20}[A-Za-z0-9])?`
	hostPattern  = hostLabel + `(\.` + hostLabel + `){0,4}`
	urlChar      = `[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2}`
)

// ipv6Pattern lists the eight groups in full, or fewer around one "::".
func ipv6Pattern() string {
	const group = `[0-9a-fA-F]{1,4}`
	forms := []string{`(` + group + `:){7}` + group, `::`}
	groups := func(n int) string { return group + strings.Repeat(`:`+group, n-1) }
	for before := range 7 {
		for after := range 7 - before {
			switch {
			case before > 0 && after > 0:
				forms = append(forms, groups(before)+`::`+groups(after))
			case before > 0:
				forms = append(forms, groups(before)+`::`)
			case after > 0:
				forms = append(forms, `::`+groups(after))
			}
		}
	}
	return strings.Join(forms, `|`)
}

// fixedPattern compiles a pattern of this package when it is first used.
func fixedPattern(pattern string) func() (*dfa, error) {
	return sync.OnceValues(func() (*dfa, error) {
		return compileRegex(newBudget(context.Background()), pattern, matching{})
	})
}
