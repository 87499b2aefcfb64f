package openai

import (
	"bytes"
	"errors"
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

func readAll(r io.Reader) (events []string, err error) {
	for rd := NewReader(r); ; {
		data, err := rd.Next()
		if err != nil {
			return events, err
		}
		events = append(events, string(data))
	}
}

func TestReader(t *testing.T) {
	tests := []struct {
		name string
		in   string
		want []string
		err  error
	}{
		{"nothing", "", nil, io.ErrUnexpectedEOF},
		{"terminated", "data: a\n\ndata: [DONE]\n\n", []string{"a"}, io.EOF},
		{"cut between events", "data: a\n\n", []string{"a"}, io.ErrUnexpectedEOF},
		{"cut inside an event", "data: a\n\ndata: b\n", []string{"a"}, io.ErrUnexpectedEOF},
		{"cut inside a line", "data: a\n\ndata: [DONE]", []string{"a"}, io.ErrUnexpectedEOF},
		{"all line ends", "data: a\r\n\r\ndata: b\r\rdata: c\n\ndata: [DONE]\r\n\r\n", []string{"a", "b", "c"}, io.EOF},
		{"comments and other fields", ": ping\n\nevent: x\nid: 7\ndata: a\nretry: 9\n\ndata: [DONE]\n\n", []string{"a"}, io.EOF},
		{"no space, two spaces", "data:a\n\ndata:  b\n\ndata:[DONE]\n\n", []string{"a", " b"}, io.EOF},
		{"several lines", "data: a\ndata:\ndata: b\n\ndata: [DONE]\n\n", []string{"a\n\nb"}, io.EOF},
		{"empty data", "data\n\ndata: [DONE]\n\n", []string{""}, io.EOF},
		{"byte order mark", "\ufeffdata: a\n\ndata: [DONE]\n\n", []string{"a"}, io.EOF},
		{"nothing after the terminator", "data: [DONE]\n\ndata: a\n\n", nil, io.EOF},
		{"long line", "data: " + strings.Repeat("x", MaxEventBytes) + "\n\n", nil, ErrEventTooLong},
		{"long event", strings.Repeat("data: "+strings.Repeat("x", 1<<16)+"\n", 17) + "\n", nil, ErrEventTooLong},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := readAll(strings.NewReader(tt.in))
			if !slices.Equal(got, tt.want) || !errors.Is(err, tt.err) {
				t.Errorf("got %.80q, %v; want %.80q, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestReaderPassesTheCauseOn(t *testing.T) {
	cause := errors.New("connection reset")
	_, err := readAll(io.MultiReader(strings.NewReader("data: a\n\n"), iotest.ErrReader(cause)))
	if !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
}

// A CR ends a line at once: with a reader that has no more to give yet, the
// event must already be there.
func TestReaderDoesNotWaitForTheByteAfterCR(t *testing.T) {
	pr, pw := io.Pipe()
	go func() { _, _ = pw.Write([]byte("data: a\r\r")) }() // ends with the read
	if got, err := NewReader(pr).Next(); string(got) != "a" || err != nil {
		t.Errorf("got %q, %v; want a", got, err)
	}
}

func TestReaderReadsWhatStreamWrites(t *testing.T) {
	w := httptest.NewRecorder()
	s := NewStream(w)
	want := []string{`{"text":"line\nbreak"}`, `"\r"`}
	for _, v := range []any{map[string]string{"text": "line\nbreak"}, "\r"} {
		if err := s.Send(v); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Done(); err != nil {
		t.Fatal(err)
	}
	got, err := readAll(w.Body)
	if !slices.Equal(got, want) || err != io.EOF {
		t.Errorf("got %q, %v; want %q, EOF", got, err, want)
	}
}

// However the bytes arrive, the events are the same, and each is bounded.
func FuzzReader(f *testing.F) {
	for _, s := range []string{
		"data: a\r\n\r\ndata: b\n\ndata: [DONE]\n\n", "\ufeffdata:a\r\rdata:[DONE]\r\r",
		": c\nevent: e\ndata: 1\ndata: 2\n\n", "data: a\n", "data\n\n", "\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole, wholeErr := readAll(bytes.NewReader(in))
		bytewise, bytewiseErr := readAll(iotest.OneByteReader(bytes.NewReader(in)))
		if !slices.Equal(whole, bytewise) || !errors.Is(bytewiseErr, wholeErr) {
			t.Errorf("whole: %q, %v; byte by byte: %q, %v", whole, wholeErr, bytewise, bytewiseErr)
		}
		for _, e := range whole {
			if len(e) > MaxEventBytes {
				t.Errorf("event of %d bytes", len(e))
			}
		}
	})
}
