package main

import (
	"slices"
	"strings"
	"testing"
)

func TestReadStream(t *testing.T) {
	const text = `: comment

data: {"choices":[{"index":0,"text":"a","finish_reason":null}],"usage":null}

data: {"choices":[{"index":0,"text":"","finish_reason":"length"}],"usage":null}

data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}

data: [DONE]

data: not reached
`
	var got []event
	if err := readStream(strings.NewReader(text), func(e event) { got = append(got, e) }); err != nil {
		t.Fatal(err)
	}
	if want := []event{{Text: "a"}, {Finish: "length"}, {Tokens: 2, Cached: 1}}; !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
}

func TestReadStreamFaults(t *testing.T) {
	for want, text := range map[string]string{
		"without [DONE]":  "data: {\"choices\":[]}\n",
		"parse event":     "data: {\n",
		"server: no luck": `data: {"error":{"message":"no luck"}}`,
		"read stream":     "data: " + strings.Repeat("x", maxEvent),
	} {
		err := readStream(strings.NewReader(text), func(event) {})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("readStream = %v, want an error with %q", err, want)
		}
	}
}

func FuzzReadStream(f *testing.F) {
	f.Add("data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n")
	f.Add("data: {\"error\":{\"message\":\"x\"}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		err := readStream(strings.NewReader(text), func(event) {})
		if err == nil && !strings.Contains(text, "[DONE]") {
			t.Error("a stream without an end mark was taken for a whole one")
		}
	})
}

func TestWindow(t *testing.T) {
	w := window{streams: 2, steps: 2}
	var log strings.Builder
	// Stream 0 is ahead by two tokens when stream 1 starts.
	for _, stream := range []int{0, 0, 1, 0, 1, 0, 1, 0} {
		begins, ends := w.add(stream)
		switch {
		case begins:
			log.WriteByte('[')
		case ends:
			log.WriteByte(']')
		default:
			log.WriteByte('.')
		}
	}
	if got, want := log.String(), "..[...]."; got != want {
		t.Errorf("window %s, want %s", got, want)
	}
}
