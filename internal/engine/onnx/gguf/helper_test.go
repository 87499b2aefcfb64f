package gguf

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"infer/internal/engine/onnx/gguf/gguftest"
)

// fromMake returns a variable that `make test` sets. A test that cannot run
// fails: a skipped proof would look like a passed one.
func fromMake(t *testing.T, name string) string {
	t.Helper()
	v := os.Getenv(name)
	if v == "" {
		t.Fatalf("%s is not set; run `make test`, which fetches what this test needs and sets it", name)
	}
	return v
}

func tiny(t *testing.T, s gguftest.Spec) string {
	t.Helper()
	path, err := gguftest.Tiny(t.TempDir(), s)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// imported imports src into a fresh folder.
func imported(t *testing.T, src string, o Options) string {
	t.Helper()
	dst := filepath.Join(t.TempDir(), "model")
	if err := Import(t.Context(), src, dst, o); err != nil {
		t.Fatal(err)
	}
	return dst
}

// spoilt imports src with a fault put into the checked model first.
func spoilt(t *testing.T, src string, o Options, fault func(*llama)) string {
	t.Helper()
	f, done, err := open(src)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	m, err := newLlama(f)
	if err != nil {
		t.Fatal(err)
	}
	fault(m)
	dst := t.TempDir()
	if err := m.writeFolder(context.Background(), dst, o, stamp{}); err != nil {
		t.Fatal(err)
	}
	return dst
}

// withoutOffsets imports src and then wipes Q4_1's corrections.
func withoutOffsets(t *testing.T, src string, o Options) string {
	t.Helper()
	var jobs []job
	dst := spoilt(t, src, o, func(m *llama) {
		b := newBuilder(m, o)
		if err := b.build(); err != nil {
			t.Fatal(err)
		}
		jobs = b.w.jobs
	})
	f, err := os.OpenFile(filepath.Join(dst, weightsFile), os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, j := range jobs {
		if len(j.regions) < 3 {
			continue
		}
		r := j.regions[2]
		if _, err := f.WriteAt(make([]byte, j.rows*r.rowBytes), r.offset); err != nil {
			t.Fatal(err)
		}
	}
	return dst
}

// comparison is a job of test/reference/check_import.py and its result.
type comparison struct {
	GGUF   string `json:"gguf"`
	Folder string `json:"folder"`
	Tokens []int  `json:"tokens"`
	Chunk  int    `json:"chunk"`
	Batch  int    `json:"batch"`
}

type divergence struct {
	Positions int     `json:"positions"`
	MeanKL    float64 `json:"mean_kl"`
	P99KL     float64 `json:"p99_kl"`
	Top1      float64 `json:"top1"`
}

// compare runs the folders in ONNX Runtime and the sources in numpy.
func compare(t *testing.T, jobs []comparison) []divergence {
	t.Helper()
	python := fromMake(t, "INFER_TEST_PYTHON")
	in, err := json.Marshal(jobs)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, filepath.Join("..", "..", "..", "..", "test", "reference", "check_import.py"))
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("check_import.py: %v\n%s", err, stderr.Bytes())
	}
	var results []divergence
	if err := json.Unmarshal(out, &results); err != nil || len(results) != len(jobs) {
		t.Fatalf("check_import.py: %d results for %d jobs, %v", len(results), len(jobs), err)
	}
	return results
}
