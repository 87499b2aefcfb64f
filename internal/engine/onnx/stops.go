package onnx

import "strings"

// stopText cuts a growing text at the first stop string. What may be the
// beginning of one is held back until more text decides.
type stopText struct {
	stops   []string
	include bool   // release the stop string too
	matched string // the stop string that was found
	pending string // not yet released
}

// add takes more text and returns what can be released. found is set when a
// stop string appeared; the text before it is released and the rest dropped.
func (s *stopText) add(text string) (release string, found bool) {
	if len(s.stops) == 0 {
		return text, false
	}
	s.pending += text
	at := -1
	for _, stop := range s.stops {
		if i := strings.Index(s.pending, stop); i >= 0 && (at < 0 || i < at) {
			at, s.matched = i, stop
		}
	}
	if at >= 0 {
		if s.include {
			at += len(s.matched)
		}
		release, s.pending = s.pending[:at], ""
		return release, true
	}
	keep := 0
	for _, stop := range s.stops {
		keep = max(keep, overlap(s.pending, stop))
	}
	cut := len(s.pending) - keep
	release, s.pending = s.pending[:cut], s.pending[cut:]
	return release, false
}

// skip releases text that no stop string may cut.
func (s *stopText) skip(text string) string {
	release := s.pending + text
	s.pending = ""
	return release
}

// flush releases what was held back, at the end of the text.
func (s *stopText) flush() string {
	rest := s.pending
	s.pending = ""
	return rest
}

// overlap is the length of the longest proper prefix of stop that ends text.
func overlap(text, stop string) int {
	for n := min(len(stop)-1, len(text)); n > 0; n-- {
		if strings.HasSuffix(text, stop[:n]) {
			return n
		}
	}
	return 0
}
