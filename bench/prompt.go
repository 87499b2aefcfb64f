package main

import (
	"math/rand/v2"
	"strings"
)

// Words of the prompts. Prose that lists and lists is continued by a small
// model without an end, which is what measuring a decode rate needs.
var (
	adjectives = strings.Fields("old quiet bright narrow green heavy distant wooden early careful broken warm silver patient crowded hollow")
	nouns      = strings.Fields("lighthouse river carpenter market window garden letter ship teacher mountain bridge kitchen orchard train island clock")
	verbs      = strings.Fields("watched carried remembered followed painted repaired counted crossed described measured opened guarded visited sold found drew")
)

// story makes prose of at least words words. Two calls part within a few words, so
// that no prefix cache can answer for the model.
func story(rng *rand.Rand, words int) string {
	pick := func(list []string) string { return list[rng.IntN(len(list))] }
	var b strings.Builder
	for n := 0; n < words; n += 10 {
		subject := pick(adjectives)
		for _, w := range []string{strings.ToUpper(subject[:1]) + subject[1:], pick(nouns), "and", pick(nouns), pick(verbs),
			"the", pick(adjectives), pick(nouns), "near the", pick(nouns)} {
			b.WriteString(w)
			b.WriteByte(' ')
		}
		b.WriteString("while nobody spoke. ")
	}
	return b.String()
}
