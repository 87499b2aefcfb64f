package onnx

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"infer/internal/engine/onnx/tokenizer"
)

// realModel loads the real model without a scheduler, with compute at level.
func realModel(tb testing.TB, level, slots int) (*model, *tokenizer.Tokenizer) {
	tb.Helper()
	cfg := realConfig(tb)
	cfg.AccuracyLevel, cfg.Slots, cfg.ContextTokens = level, slots, 1024
	log := slog.New(slog.NewTextHandler(tb.Output(), nil))
	lib, err := openLibrary(cfg, log)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(lib.Close)
	e, err := New(cfg, log)
	if err != nil {
		tb.Fatal(err)
	}
	dir, err := e.folder(tb.Context(), device{})
	if err != nil {
		tb.Fatal(err)
	}
	gc, err := readFolder(dir)
	if err != nil {
		tb.Fatal(err)
	}
	m, err := newModel(lib, dir, gc, cfg, device{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(m.close)
	tok, err := tokenizer.Load(dir)
	if err != nil {
		tb.Fatal(err)
	}
	return m, tok
}

// prompts of different lengths, so that a wrong length of a row shows.
var prompts = []string{
	"The lighthouse keeper counted the ships that",
	"Rayleigh scattering explains why the sky is blue: short wavelengths",
	"def fibonacci(n):\n    if n < 2:\n        return n\n    return",
	"1. Wash the rice. 2. Boil water. 3. Add salt. 4. Simmer for twelve minutes. 5.",
}

// greedyAlone decodes n tokens after prompt in slot 0 with nothing else running
// and returns them with their logits.
func greedyAlone(t *testing.T, m *model, prompt []int32, n int) (ids []int32, logits [][]float32) {
	t.Helper()
	out, err := m.prefill(t.Context(), 0, prompt, 0)
	for i := range n {
		if err != nil {
			t.Fatal(err)
		}
		logits = append(logits, slices.Clone(out))
		ids = append(ids, argmax(out))
		var rows [][]float32
		if rows, err = m.decode(t.Context(), ids[i:i+1], []int{len(prompt) + i}); err == nil {
			out = rows[0]
		}
	}
	return ids, logits
}

// teacherForced decodes the same tokens in a batch, row i being prompt i, and
// returns the largest difference from the logits each row had alone. skew is
// added to the length of every row but the last: 0 is right.
func teacherForced(t *testing.T, m *model, prompts, ids [][]int32, alone [][][]float32, skew int) float64 {
	t.Helper()
	lengths := make([]int, len(prompts))
	for i, p := range prompts {
		if _, err := m.prefill(t.Context(), i, p, 0); err != nil {
			t.Fatal(err)
		}
		lengths[i] = len(p)
	}
	worst := 0.0
	for step := range len(ids[0]) - 1 {
		tokens, told := make([]int32, len(prompts)), slices.Clone(lengths)
		for i := range prompts {
			tokens[i] = ids[i][step]
			if i < len(prompts)-1 {
				told[i] += skew
			}
		}
		rows, err := m.decode(t.Context(), tokens, told)
		if err != nil {
			t.Fatal(err)
		}
		for i, row := range rows {
			worst = max(worst, maxDiff(row, alone[i][step+1]))
			lengths[i]++
		}
	}
	return worst
}

func maxDiff(a, b []float32) float64 {
	worst := 0.0
	for i := range a {
		worst = max(worst, math.Abs(float64(a[i]-b[i])))
	}
	return worst
}

// TestBatchEqualsSolo is the proof of the shared KV cache: rows of different
// lengths that decode together get the logits they get alone. It runs at fp32
// compute, since int8 activations depend on the batch. The negative control
// tells the graph wrong lengths and must be seen to differ.
func TestBatchEqualsSolo(t *testing.T) {
	m, tok := realModel(t, 0, 4)
	const steps, tolerance = 12, 1e-3
	var in, ids [][]int32
	var alone [][][]float32
	for _, p := range prompts {
		prompt := tok.Encode(p)
		tokens, logits := greedyAlone(t, m, prompt, steps)
		in, ids, alone = append(in, prompt), append(ids, tokens), append(alone, logits)
	}
	if d := teacherForced(t, m, in, ids, alone, 0); d > tolerance {
		t.Errorf("batch and solo logits differ by %g, want at most %g", d, tolerance)
	} else {
		t.Logf("largest difference %g", d)
	}
	if d := teacherForced(t, m, in, ids, alone, 1); d < 100*tolerance {
		t.Errorf("with wrong lengths the logits differ by only %g: this test would not notice a fault", d)
	}
}

// TestChunkedPrefillEqualsWhole holds that cutting a prompt changes nothing,
// in a high slot too, and after a swap or copy to a lower one.
func TestChunkedPrefillEqualsWhole(t *testing.T) {
	m, tok := realModel(t, 0, 3)
	prompt := tok.Encode(strings.Join(prompts, "\n"))
	want, err := m.prefill(t.Context(), 0, prompt, 0)
	if err != nil {
		t.Fatal(err)
	}
	want = slices.Clone(want)
	var got []float32
	for pos := 0; pos < len(prompt); {
		n := min(7, len(prompt)-pos)
		if got, err = m.prefill(t.Context(), 2, prompt[pos:pos+n], pos); err != nil {
			t.Fatal(err)
		}
		pos += n
	}
	if d := maxDiff(got, want); d > 1e-3 {
		t.Errorf("chunked and whole prefill differ by %g", d)
	}
	next := argmax(want)
	rows, err := m.decode(t.Context(), []int32{next}, []int{len(prompt)})
	if err != nil {
		t.Fatal(err)
	}
	after := slices.Clone(rows[0])
	if !m.swap(2, 1, len(prompt)) {
		t.Fatal("swap refused on the host")
	}
	if rows, err = m.decode(t.Context(), []int32{0, next}, []int{0, len(prompt)}); err != nil {
		t.Fatal(err)
	}
	if d := maxDiff(rows[1], after); d > 1e-3 {
		t.Errorf("after a swap the logits differ by %g", d)
	}
	if !m.copy(1, 0, len(prompt)) {
		t.Fatal("copy refused on the host")
	}
	if rows, err = m.decode(t.Context(), []int32{next}, []int{len(prompt)}); err != nil {
		t.Fatal(err)
	}
	if d := maxDiff(rows[0], after); d > 1e-3 {
		t.Errorf("after a copy the logits differ by %g", d)
	}
}

func TestPrefillEndsWithItsContext(t *testing.T) {
	m, tok := realModel(t, 4, 1)
	prompt := tok.Encode(strings.Repeat(prompts[1]+" ", 60))[:800]
	cause := errors.New("the client left")
	ctx, cancel := context.WithTimeoutCause(t.Context(), 20*time.Millisecond, cause) // in the middle of the run
	defer cancel()
	if _, err := m.prefill(ctx, 0, prompt, 0); !errors.Is(err, cause) {
		t.Errorf("prefill = %v, want the context's cause", err)
	}
	if _, err := m.prefill(t.Context(), 0, prompt[:8], 0); err != nil {
		t.Errorf("the next prefill = %v, want it untouched", err)
	}
}

func benchModel(b *testing.B) (*model, []int32) {
	m, tok := realModel(b, 4, 4)
	return m, tok.Encode(strings.Repeat(prompts[1]+" ", 40))[:256]
}

// BenchmarkModel is the bare engine: what the graph gives without scheduler
// and HTTP. One operation of prefill is 256 tokens, of decode one step.
func BenchmarkModel(b *testing.B) {
	m, prompt := benchModel(b)
	b.Run("prefill256", func(b *testing.B) {
		for b.Loop() {
			if _, err := m.prefill(b.Context(), 0, prompt, 0); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(256*float64(b.N)/b.Elapsed().Seconds(), "tokens/s")
	})
	for _, n := range []int{1, 4} {
		b.Run(map[int]string{1: "decode1", 4: "decode4"}[n], func(b *testing.B) {
			lengths := make([]int, n)
			for i := range n {
				lengths[i] = len(prompt)
				if _, err := m.prefill(b.Context(), i, prompt, 0); err != nil {
					b.Fatal(err)
				}
			}
			b.ResetTimer()
			for i := 0; b.Loop(); i++ {
				for j := range lengths {
					lengths[j] = len(prompt) + i%64
				}
				if _, err := m.decode(b.Context(), make([]int32, n), lengths); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "tokens/s")
		})
	}
}
