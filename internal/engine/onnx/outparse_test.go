package onnx

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// summary joins segments of one kind, so that texts cut in other places
// compare equal.
func summary(list []segment) string {
	var b strings.Builder
	last := segmentKind(-1)
	for _, s := range list {
		switch {
		case s.kind == callBegin:
			fmt.Fprintf(&b, " CALL%d %s", s.call, s.name)
		case s.kind != last:
			fmt.Fprintf(&b, " %s:%s", []string{"TEXT", "THOUGHT", "", "ARGS"}[s.kind], s.text)
		default:
			b.WriteString(s.text)
		}
		last = s.kind
	}
	return strings.TrimSpace(b.String())
}

var parseCases = []struct {
	name     string
	format   int
	thinking bool
	text     string
	want     string
}{
	{"text", 0, false, "Hello <b>world</b>", "TEXT:Hello <b>world</b>"},
	{"hermes", 0, false, "Sure.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": \"}\\\"{\", \"b\": [1, {}]}}\n</tool_call>",
		"TEXT:Sure.\n CALL0 f ARGS:{\"a\": \"}\\\"{\", \"b\": [1, {}]}"},
	{"two", 0, false, "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>{\"name\":\"g\",\"arguments\":{\"x\":1}}</tool_call>",
		"CALL0 f ARGS:{} CALL1 g ARGS:{\"x\":1}"},
	{"arguments first", 0, false, "<tool_call>{\"arguments\":{\"x\":1},\"name\":\"g\"}</tool_call> done", "CALL0 g ARGS:{\"x\":1} TEXT:done"},
	{"no arguments", 0, false, "<tool_call>{\"name\":\"g\"}</tool_call>", "CALL0 g ARGS:{}"},
	{"string arguments", 0, false, "<tool_call>{\"name\":\"g\",\"arguments\":\"{\\\"x\\\":1}\"}</tool_call>", "CALL0 g ARGS:{\"x\":1}"},
	{"null arguments", 0, false, "<tool_call>{\"name\":\"g\",\"arguments\":null}</tool_call>", "CALL0 g ARGS:{}"},
	{"not a call", 0, false, "<tool_call>oops", "TEXT:<tool_call>oops"},
	{"no name", 0, false, "<tool_call>{\"a\":1}</tool_call>", "TEXT:<tool_call>{\"a\":1}</tool_call>"},
	{"cut call", 0, false, "x<tool_call>{\"name\":\"g\"", "TEXT:x<tool_call>{\"name\":\"g\""},
	{"cut arguments", 0, false, "<tool_call>{\"name\":\"g\",\"arguments\":{\"x\":", "CALL0 g ARGS:{\"x\":"},
	{"half a marker", 0, false, "a <tool", "TEXT:a <tool"},
	{"mistral", 2, false, "[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {\"a\": 1}}, {\"name\": \"g\", \"arguments\": {}}]",
		"CALL0 f ARGS:{\"a\": 1} CALL1 g ARGS:{}"},
	{"headed", 1, false, "Look.[TOOL_CALLS]f[ARGS]{\"a\": {\"b\": \"}\"}}[TOOL_CALLS]g[CALL_ID]x1[ARGS] {} done",
		"TEXT:Look. CALL0 f ARGS:{\"a\": {\"b\": \"}\"}} CALL1 g ARGS:{} TEXT:done"},
	{"headed without arguments", 1, false, "[TOOL_CALLS]f[ARGS]none", "TEXT:[TOOL_CALLS]f[ARGS]none"},
	{"headed by no name", 1, false, "[TOOL_CALLS]a b[ARGS]{}", "TEXT:[TOOL_CALLS]a b[ARGS]{}"},
	{"headed for ever", 1, false, "[TOOL_CALLS]" + strings.Repeat("f", 300), "TEXT:[TOOL_CALLS]" + strings.Repeat("f", 300)},
	{"headed and cut", 1, false, "[TOOL_CALLS]f[AR", "TEXT:[TOOL_CALLS]f[AR"},
	{"phi", 3, false, "<|tool_call|>[{\"name\": \"f\", \"arguments\": {\"a\": 1}}]<|/tool_call|>", "CALL0 f ARGS:{\"a\": 1}"},
	{"llama", 4, false, "{\"name\": \"f\", \"parameters\": {\"a\": 1}}", "CALL0 f ARGS:{\"a\": 1}"},
	{"llama tag", 4, false, "<|python_tag|>{\"name\": \"f\", \"parameters\": {\"a\": 1}}; {\"name\":\"g\",\"parameters\":{}}", "CALL0 f ARGS:{\"a\": 1} CALL1 g ARGS:{}"},
	{"llama text", 4, false, "The object {} is empty", "TEXT:The object {} is empty"},
	{"thought", 0, false, "<think>\nhm < 3\n</think>\n\nYes.", "THOUGHT:hm < 3\n TEXT:Yes."},
	{"thought opened", 0, true, "hm</think>\n<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>", "THOUGHT:hm CALL0 f ARGS:{}"},
	{"thought cut", 0, true, "hm</thin", "THOUGHT:hm</thin"},
}

func TestOutputParser(t *testing.T) {
	for _, tc := range parseCases {
		p := newOutputParser(&toolUse{tools: []tool{{}}, choice: "auto", parallel: true}, &callFormats[tc.format].callFormat, tc.thinking)
		if got := summary(append(p.feed(tc.text, false), p.feed("", true)...)); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestOutputParserInPieces holds that cuts change nothing.
func TestOutputParserInPieces(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tc := rapid.SampledFrom(parseCases).Draw(t, "case")
		p := newOutputParser(&toolUse{tools: []tool{{}}, choice: "auto", parallel: true}, &callFormats[tc.format].callFormat, tc.thinking)
		var list []segment
		for rest := tc.text; rest != ""; {
			n := rapid.IntRange(1, min(len(rest), 9)).Draw(t, "n")
			list = append(list, p.feed(rest[:n], len(rest) == n)...)
			rest = rest[n:]
		}
		if got := summary(list); got != tc.want {
			t.Fatalf("%s: got %q, want %q", tc.name, got, tc.want)
		}
	})
}

func TestOutputParserTakesOneCallWhenOneIsWanted(t *testing.T) {
	p := newOutputParser(&toolUse{tools: []tool{{}}, choice: "auto"}, &callFormats[0].callFormat, false)
	text := `<tool_call>{"name":"f","arguments":{}}</tool_call>`
	if got := summary(p.feed(text+text, true)); strings.Contains(got, "CALL1") {
		t.Errorf("got %q, want one call", got)
	}
	p = newOutputParser(&toolUse{}, &callFormats[0].callFormat, false)
	if got := summary(p.feed(text, true)); got != "TEXT:"+text {
		t.Errorf("without tools: %q, want text", got)
	}
}

func FuzzOutputParser(f *testing.F) {
	for _, tc := range parseCases {
		f.Add(tc.text, tc.format, tc.thinking)
	}
	f.Fuzz(func(t *testing.T, text string, format int, thinking bool) {
		format = (format%len(callFormats) + len(callFormats)) % len(callFormats)
		use := &toolUse{tools: []tool{{}}, choice: "auto", parallel: true}
		whole := newOutputParser(use, &callFormats[format].callFormat, thinking).feed(text, true)
		p := newOutputParser(use, &callFormats[format].callFormat, thinking)
		var list []segment
		for i := range len(text) {
			list = append(list, p.feed(text[i:i+1], i == len(text)-1)...)
		}
		if text != "" && summary(list) != summary(whole) {
			t.Errorf("%q in bytes: %q, whole: %q", text, summary(list), summary(whole))
		}
	})
}
