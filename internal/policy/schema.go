package policy

import (
	"fmt"

	"infer/internal/openai"
)

// schema bounds what an engine compiles: a JSON schema, as an object or as a
// text, a grammar, a structural tag. Bytes bound the time a compiler takes far
// better than any count within.
func schema(p *Policy, _ *call, param string, v openai.Value) *openai.Error {
	if n := len(v.Text); n > p.cfg.MaxSchemaBytes && !v.Absent() {
		return tooLong(param, n, p.cfg.MaxSchemaBytes, "max-schema-bytes")
	}
	if k := v.Kind(); k != '{' && k != '[' {
		return nil
	}
	return patterns(param, v)
}

// patterns bounds the regular expressions within a schema: the value of each
// pattern, and the names below each patternProperties, as all names are. A
// property may be called pattern, too, but not within ever more of them.
func patterns(param string, v openai.Value) *openai.Error {
	var wrong *openai.Error
	wanted := func(name []byte, at openai.Path) bool {
		return len(name) > maxRegexBytes || string(name) == "pattern" && at.Below("pattern") <= maxNested
	}
	v.Find(wanted, func(m openai.Member, at openai.Path) bool {
		switch {
		case len(m.Name) > maxRegexBytes:
			wrong = tooLong(param+at.String(), len(m.Name), maxRegexBytes, "")
		case m.Value.StringBytes() > maxRegexBytes:
			wrong = tooLong(param+at.String(), m.Value.StringBytes(), maxRegexBytes, "")
		}
		return wrong == nil
	})
	return wrong
}

// members applies rules to the members of an object, and other to what has
// none.
func members(rules map[string]rule) rule {
	return func(p *Policy, c *call, param string, v openai.Value) *openai.Error {
		for name, m := range v.Members() {
			if r := rules[string(name)]; r != nil {
				if e := r(p, c, param+"."+string(name), m); e != nil {
					return e
				}
			}
		}
		return nil
	}
}

// tools bounds their number, and each one's name and schema, in the shapes of
// chat completions, responses and messages.
func tools(of rule) rule {
	return func(p *Policy, c *call, param string, v openai.Value) *openai.Error {
		if e := listOf(param, v, p.cfg.MaxTools, "max-tools"); e != nil {
			return e
		}
		for i, tool := range v.Elements() {
			if e := of(p, c, fmt.Sprintf("%s[%d]", param, i), tool); e != nil {
				return e
			}
		}
		return nil
	}
}
