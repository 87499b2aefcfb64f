package onnx

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestStopTextHoldsBackOnlyWhatMayStop(t *testing.T) {
	s := &stopText{stops: []string{"\n\n", "END"}}
	var steps []string
	for _, in := range []string{"a\n", "b E", "N", "X \n"} {
		out, found := s.add(in)
		if found {
			t.Fatalf("found a stop in %q", in)
		}
		steps = append(steps, out)
	}
	if got, want := strings.Join(steps, "|"), "a|\nb ||ENX "; got != want {
		t.Errorf("released %q, want %q", got, want)
	}
	if out, found := s.add("\nrest"); out != "" || !found {
		t.Errorf("add = %q, %v, want the stop found and nothing released", out, found)
	}
}

// TestStopTextEqualsACutOfTheWhole splits a text in every way and compares with
// cutting it in one piece.
func TestStopTextEqualsACutOfTheWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[ab]{0,30}`).Draw(t, "text")
		stops := rapid.SliceOfN(rapid.StringMatching(`[ab]{1,4}`), 0, 3).Draw(t, "stops")
		want, cut := text, false
		for i := range text {
			for _, s := range stops {
				if !cut && strings.HasPrefix(text[i:], s) {
					want, cut = text[:i], true
				}
			}
		}
		s := &stopText{stops: stops}
		got, found := "", false
		for rest := text; rest != "" && !found; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			var out string
			out, found = s.add(rest[:n])
			got, rest = got+out, rest[n:]
		}
		if !found {
			got += s.flush()
		}
		// A stop that ends sooner may be found before one that begins earlier
		// but is longer; then the text is cut a little later, never earlier.
		if found != cut || !strings.HasPrefix(got, want) && got != want {
			t.Fatalf("stops %q: got %q (found %v), want %q (%v)", stops, got, found, want, cut)
		}
	})
}
