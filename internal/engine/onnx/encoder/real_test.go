package encoder

import (
	"context"
	"encoding/json/v2"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
)

type referenceCase struct {
	Text      string    `json:"text"`
	Tokens    int       `json:"tokens"`
	Embedding []float32 `json:"embedding"`
}

func references(tb testing.TB) []referenceCase {
	tb.Helper()
	b, err := os.ReadFile("testdata/reference.json")
	if err != nil {
		tb.Fatal(err)
	}
	var list []referenceCase
	if err := json.Unmarshal(b, &list); err != nil || len(list) < 5 {
		tb.Fatalf("%d references, %v", len(list), err)
	}
	return list
}

// The int8 graph against the fp32 weights in another implementation.
func TestRealModelIsCloseToTheReference(t *testing.T) {
	e := startReal(t)
	if e.Dimensions() != 384 || e.MaxTokens() != 256 || e.VocabSize() != 30522 || e.Labels() != nil {
		t.Errorf("%d dimensions, %d tokens, %d ids, labels %v", e.Dimensions(), e.MaxTokens(), e.VocabSize(), e.Labels())
	}
	for _, c := range references(t) {
		in := framed(e, c.Text)
		if len(in[0].IDs) != c.Tokens {
			t.Errorf("%.40q has %d tokens, want %d", c.Text, len(in[0].IDs), c.Tokens)
		}
		v := vectors(t, e, c.Text)[0]
		cos := Cosine(v, c.Embedding)
		t.Logf("%.40q: cosine %.5f", c.Text, cos)
		if cos < 0.999 || math.Abs(norm(v)-1) > 1e-5 {
			t.Errorf("%.40q: cosine %v and length %v, want at least 0.999 and 1", c.Text, cos, norm(v))
		}
	}
}

// What runs beside a text must not change its meaning. The graph quantises
// activations by their range in the whole batch, so equality is not exact.
func TestConcurrentBatchesEqualSingleRuns(t *testing.T) {
	e := startReal(t)
	var texts []string
	for _, c := range references(t) {
		texts = append(texts, c.Text, c.Text+" and so on", strings.ToUpper(c.Text))
	}
	var single [][]float32
	for _, text := range texts {
		single = append(single, vectors(t, e, text)...)
	}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			order := rand.Perm(len(texts))
			for len(order) > 0 {
				n := 1 + rand.IntN(len(order))
				var some []string
				for _, i := range order[:n] {
					some = append(some, texts[i])
				}
				out, err := e.Vectors(t.Context(), framed(e, some...))
				if err != nil {
					t.Error(err)
					return
				}
				for k, i := range order[:n] {
					if cos := Cosine(out[k], single[i]); cos < 0.998 {
						t.Errorf("%.40q in a batch has cosine %v to itself alone", texts[i], cos)
					}
				}
				order = order[n:]
			}
		})
	}
	wg.Wait()
}

// A caller that leaves does not wait for what it asked, and those who stay get
// theirs.
func TestLeavingEndsTheRun(t *testing.T) {
	e := startReal(t)
	long := strings.Repeat("word ", 400)
	many := make([]string, 400) // seconds of work
	for i := range many {
		many[i] = long
	}
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	inputs := framed(e, many...)
	go func() {
		_, err := e.Vectors(ctx, inputs)
		left <- err
	}()
	vectors(t, e, "somebody else, in between")
	cancel()
	if err := <-left; err != context.Canceled {
		t.Errorf("Vectors() = %v, want %v", err, context.Canceled)
	}
	vectors(t, e, "somebody else, after")
	e.mu.Lock()
	defer e.mu.Unlock()
	if n := len(e.queue.calls); n != 0 {
		t.Errorf("%d calls in the queue after all were answered", n)
	}
}

// Whoever waits when the engine stops is told so, also in the middle of a run.
func TestStoppingInTheMiddle(t *testing.T) {
	e := open(t, Config{Dir: testEnv(t, "INFER_TEST_EMBEDDING_MODEL"), Threads: 1})
	ctx, stop := context.WithCancel(t.Context())
	ended, answered := make(chan error, 1), make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	many := make([]string, 400) // seconds of work
	for i := range many {
		many[i] = strings.Repeat("word ", 400)
	}
	inputs := framed(e, many...)
	go func() {
		_, err := e.Vectors(t.Context(), inputs)
		answered <- err
	}()
	vectors(t, e, "somebody else, so that the others have begun")
	stop()
	if err := <-answered; !errors.Is(err, ErrStopped) {
		t.Errorf("Vectors() = %v, want %v", err, ErrStopped)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run() = %v", err)
	}
}

func BenchmarkEmbed(b *testing.B) {
	e := startReal(b)
	const text = "The quick brown fox jumps over the lazy dog near the bank of a slow river."
	for _, n := range []int{1, 32} {
		b.Run(map[int]string{1: "one", 32: "batch of 32"}[n], func(b *testing.B) {
			texts := make([]string, n)
			for i := range texts {
				texts[i] = text
			}
			for b.Loop() {
				vectors(b, e, texts...)
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "texts/s")
		})
	}
}
