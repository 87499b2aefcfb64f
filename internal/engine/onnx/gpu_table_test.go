//go:build gpu

package onnx

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json/v2"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"
)

// TestGPUTable measures and prints; it fails only when something breaks.
// Every figure is the median of five, after one that is not counted. TTFT is
// what an HTTP client sees.
func TestGPUTable(t *testing.T) {
	before := gpuMiB(t)
	m, tok := gpuModel(t, 16)
	prompt := tok.Encode(strings.Repeat(prompts[1]+" ", 100))
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "gpu-table:\t%s\t"+format+"\n", append([]any{name}, args...)...)
	}
	for _, n := range []int{256, 1024} {
		d := median(t, func() error { _, err := m.prefill(t.Context(), 0, prompt[:n], 0); return err })
		row(fmt.Sprintf("prefill %d", n), "%.0f tokens/s", float64(n)/d.Seconds())
	}
	for _, n := range []int{1, 4, 16} {
		const steps = 32
		d := median(t, func() error { return decodeSteps(m, n, 256, steps) })
		row(fmt.Sprintf("decode %d streams", n), "%.0f tokens/s\t%.2f ms a step", float64(n*steps)/d.Seconds(), d.Seconds()*1000/steps)
	}
	row("KV cache", "%d MiB", m.kvBytes()>>20)
	row("device memory", "%d MiB more than before", gpuMiB(t)-before)
	cfg := cudaConfig(t, testEnv(t, "INFER_TEST_ONNXRUNTIME_CUDA"))
	cfg.ContextTokens = 2048
	srv := startReal(t, cfg)
	count := 0
	d := median(t, func() error {
		count++ // another beginning each time, so that no prefix is cached
		return firstToken(srv, fmt.Sprintf("%d %s", count, tok.Decode(prompt[:200], true)))
	})
	row("TTFT, 200 tokens, over HTTP", "%.1f ms", d.Seconds()*1000)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
}

func decodeSteps(m *model, rows, start, steps int) error {
	lengths := make([]int, rows)
	for i := range steps {
		for j := range lengths {
			lengths[j] = start + i
		}
		if _, err := m.decode(context.Background(), make([]int32, rows), lengths); err != nil {
			return err
		}
	}
	return nil
}

// firstToken returns once a streamed completion has its first text.
func firstToken(srv *httptest.Server, prompt string) error {
	body, err := json.Marshal(map[string]any{"prompt": prompt, "max_tokens": 4, "temperature": 0, "stream": true})
	if err != nil {
		return err
	}
	resp, err := srv.Client().Post(srv.URL+"/v1/completions", "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		if strings.Contains(sc.Text(), `"text":"`) && resp.StatusCode == http.StatusOK {
			return nil
		}
	}
	return fmt.Errorf("no token came: status %d", resp.StatusCode)
}

func median(t *testing.T, f func() error) time.Duration {
	t.Helper()
	var took []time.Duration
	for i := range 6 {
		began := time.Now()
		if err := f(); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			took = append(took, time.Since(began))
		}
	}
	slices.Sort(took)
	return took[len(took)/2]
}
