package grammar

import (
	"errors"
	"math/rand/v2"
	"regexp"
	"testing"
)

var samplePatterns = []string{
	`a`, ``, `a*`, `(ab|a)(bc|c)?`, `[a-c]{2,4}`, `\d{1,3}(,\d{3})*`, `(?i)bß`, `[^a]b.`, `(?s)a.b`, `^a$`, `a\b.*`, `b\Ba`,
	`(?m)^a$\n?`, `é|€|😀`, `\p{Greek}+a?`, `[^\x00-\x7f]`, `a+?b`, `(?:a|b)*ab`, `[[:alpha:]]_`, `x{0}`, `a|`, `\bab\b|c`,
	`$a|b`, `(^a|b)*`, `(?i)k`, `\w\W`, `(a*)*b`,
}

// TestRegex compares with Go's regexp over random texts.
func TestRegex(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	alphabet := []rune("aaabbbccAK_ ,1\n\tkßẞKé€😀αω")
	for _, p := range samplePatterns {
		g, err := Regex(t.Context(), p)
		if err != nil {
			t.Errorf("Regex(%q): %v", p, err)
			continue
		}
		want := regexp.MustCompile(`\A(?:` + p + `)\z`)
		matched := 0
		for i := range 2500 {
			text := make([]rune, rnd.IntN(2+i/500))
			for j := range text {
				text[j] = alphabet[rnd.IntN(len(alphabet))]
			}
			w := want.MatchString(string(text))
			if got := accepts(t, g, string(text)); got != w {
				t.Fatalf("Regex(%q) on %q: got %v, want %v", p, string(text), got, w)
			}
			if w {
				matched++
			}
		}
		if matched == 0 {
			t.Errorf("Regex(%q): no random text matched", p)
		}
	}
}

// TestPatternSearch compares the automata of schemas with Go's regexp.
func TestPatternSearch(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	alphabet := []rune("aabbc1_ \nkKé😀")
	for _, p := range samplePatterns {
		d, err := compileRegex(newBudget(t.Context()), p, matching{search: true})
		if err != nil {
			t.Fatalf("%q: %v", p, err)
		}
		want := regexp.MustCompile(p)
		for range 2500 {
			text := make([]rune, rnd.IntN(7))
			for j := range text {
				text[j] = alphabet[rnd.IntN(len(alphabet))]
			}
			got := d != nil && d.match(string(text))
			if w := want.MatchString(string(text)); got != w {
				t.Fatalf("%q on %q: got %v, want %v", p, string(text), got, w)
			}
		}
	}
}

func TestRegexErrors(t *testing.T) {
	var pattern *PatternError
	for _, p := range []string{`(?=a)`, `(?<!a)b`, `(a)\1`, `[`, `a\bb`} {
		if _, err := Regex(t.Context(), p); !errors.As(err, &pattern) {
			t.Errorf("Regex(%q): %v, want a PatternError", p, err)
		}
	}
}

func TestCombinators(t *testing.T) {
	args := mustSchema(t, `{"type":"object","properties":{"x":{"type":"integer"}},"required":["x"],"additionalProperties":false}`)
	call := Seq(Literal("<call>\n{\"name\":\"f\",\"arguments\":"), args, Literal("}\n</call>"))
	check(t, Repeat(call, 1, 2), []string{
		"<call>\n{\"name\":\"f\",\"arguments\":{\"x\":1}}\n</call>",
		"<call>\n{\"name\":\"f\",\"arguments\":{\"x\":1}}\n</call><call>\n{\"name\":\"f\",\"arguments\":{\"x\":-20}}\n</call>",
	}, []string{"", "<call>\n{\"name\":\"g\"", "<call>\n{\"name\":\"f\",\"arguments\":{\"x\":1}}"})
	word, err := Regex(t.Context(), `[a-z]*`)
	if err != nil {
		t.Fatal(err)
	}
	check(t, Seq(word, Literal("é"), Alt(Literal(""), word, Literal("1"))), []string{"é", "aé", "aéb", "é1"}, []string{"", "a", "é1a", "\xc3"})
	check(t, Repeat(word, 0, -1), []string{"", "abc"}, []string{"1"})
	check(t, Repeat(Literal("ab"), 2, 3), []string{"abab", "ababab"}, []string{"", "ab", "abababab", "aba"})
	check(t, Repeat(Literal("ab"), 1, -1), []string{"ab", "abababab"}, []string{""})
	check(t, Repeat(Literal("a"), 0, 0), []string{""}, []string{"a"})
	check(t, Seq(), []string{""}, []string{"a"})
	choice, err := Choice([]string{"yes", "no", "yesterday", "ü"})
	if err != nil {
		t.Fatal(err)
	}
	check(t, choice, []string{"yes", "no", "yesterday", "ü"}, []string{"", "ye", "yester", "nope"})
}

func TestCombinatorErrors(t *testing.T) {
	bad := Repeat(Literal("a"), 3, 2)
	for name, g := range map[string]*Grammar{"Repeat": bad, "Alt of nothing": Alt(), "Seq of an error": Seq(Literal("a"), bad),
		"huge": Repeat(Literal("a"), 1<<30, -1), "huge twice": Repeat(Repeat(Literal("a"), 1000, 1000), 1<<20, 1<<20)} {
		if g.Err() == nil {
			t.Errorf("%s: no error", name)
		}
		m := NewMatcher(g, byteVocabulary())
		if m.Mask(make([]uint64, 5)) == nil || m.Advance(0) == nil || m.Complete() || m.Finished() || m.Forced() != nil {
			t.Errorf("%s: a Matcher works", name)
		}
	}
	if _, err := Choice(nil); err == nil {
		t.Error("Choice of nothing: no error")
	}
}
