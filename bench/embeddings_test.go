package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
)

// fakeEmbedder has one vector for all texts.
type fakeEmbedder struct {
	to  []float64
	err error
}

func (f fakeEmbedder) embed(context.Context, []string) error             { return f.err }
func (f fakeEmbedder) vector(context.Context, string) ([]float64, error) { return f.to, f.err }

func TestSameModel(t *testing.T) {
	here := fakeEmbedder{to: []float64{1, 2, 2}}
	if err := sameModel(t.Context(), here, fakeEmbedder{to: []float64{2, 4, 4.1}}, "x"); err != nil {
		t.Error(err)
	}
	for name, there := range map[string]fakeEmbedder{
		"another direction": {to: []float64{2, 2, 1}},
		"another length":    {to: []float64{1, 2}},
		"nothing":           {},
		"zero":              {to: []float64{0, 0, 0}},
		"broken":            {err: errors.New("no luck")},
	} {
		if err := sameModel(t.Context(), here, there, "x"); err == nil {
			t.Errorf("%s was taken for the same model", name)
		}
		if err := sameModel(t.Context(), there, here, "x"); err == nil {
			t.Errorf("%s was taken for the same model", name)
		}
	}
}

func TestEmbedBatches(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, b := range embedBatches {
		texts := b.request(rng)
		words := map[int]bool{}
		for _, text := range texts {
			words[len(strings.Fields(text))] = true
		}
		if one := len(words) == 1; len(texts) != b.texts || one != (b.oneLength || b.texts == 1) {
			t.Errorf("%s: %d texts of %d lengths", b.of("x"), len(texts), len(words))
		}
		if len(texts) > 1 && texts[0] == texts[1] {
			t.Errorf("%s: %q twice", b.of("x"), texts[0])
		}
	}
}

func TestCosine(t *testing.T) {
	if got := cosine([]float64{1, 0}, []float64{1, 1}); math.Abs(got-math.Sqrt2/2) > 1e-12 {
		t.Errorf("cosine = %v, want half of the root of 2", got)
	}
}

func TestServerEmbeds(t *testing.T) {
	asked := ""
	s := fakeServer(t, func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		asked = string(text)
		_, _ = fmt.Fprint(w, `{"data":[{"embedding":[0.5,-1]}]}`)
	})
	if got, err := s.vector(t.Context(), "x"); err != nil || fmt.Sprint(got) != "[0.5 -1]" {
		t.Errorf("vector = %v, %v, want [0.5 -1]", got, err)
	}
	if err := s.embed(t.Context(), []string{"x", "y"}); err != nil || !strings.Contains(asked, `"input":["x","y"]`) {
		t.Errorf("embed = %v, asked %s", err, asked)
	}
	s = fakeServer(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprint(w, `{"data":[]}`) })
	if got, err := s.vector(t.Context(), "x"); err == nil {
		t.Errorf("vector = %v, want an error: there is none", got)
	}
	s = fakeServer(t, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "asleep", http.StatusServiceUnavailable) })
	if err := s.embed(t.Context(), []string{"x"}); err == nil || !strings.Contains(err.Error(), "asleep") {
		t.Errorf("embed = %v, want the server's answer", err)
	}
}

func TestPipedEmbeds(t *testing.T) {
	p := startFake(t)
	if err := p.embed(t.Context(), []string{"x"}); err == nil || !strings.Contains(err.Error(), "embed") {
		t.Errorf("embed = %v, want that the child knows no such order", err)
	}
	if err := p.stop(); err != nil {
		t.Error(err)
	}
}
