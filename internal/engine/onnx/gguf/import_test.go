package gguf

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"

	"infer/internal/engine/onnx/gguf/gguftest"
)

func readJSON(t *testing.T, into any, path ...string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		t.Fatalf("%s: %v", path[len(path)-1], err)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestFolder(t *testing.T) {
	src := tiny(t, gguftest.Spec{Type: gguftest.Q4_1})
	var done, total int64
	o := Options{AccuracyLevel: 4, Progress: func(d, n int64) {
		if d <= done || total != 0 && n != total {
			t.Errorf("progress went from %d of %d to %d of %d", done, total, d, n)
		}
		done, total = d, n
	}}
	dir := imported(t, src, o)
	if done != total || total == 0 {
		t.Errorf("progress ended at %d of %d", done, total)
	}
	want := []string{"genai_config.json", "import.json", "model.onnx", "model.onnx.data", "tokenizer.json", "tokenizer_config.json"}
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("the folder has %v, want %v", got, want)
	}
	var c genaiConfig
	readJSON(t, &c, dir, "genai_config.json")
	d := c.Model.Decoder
	if c.Model.VocabSize != len(gguftest.Vocabulary()) || c.Model.ContextLength != 256 || c.Model.Type != "llama" || c.Model.BOS != 1 ||
		d.HeadSize != 16 || d.HiddenSize != 64 || d.Heads != 4 || d.KVHeads != 2 || d.Layers != 2 || d.Filename != "model.onnx" {
		t.Errorf("genai_config.json says %+v", c.Model)
	}
	// eos_token_id of the file, then the other control token that ends a text.
	if ids, ok := c.Model.EOS.([]any); !ok || len(ids) != 2 || ids[0] != 2.0 || ids[1] != 0.0 {
		t.Errorf("eos_token_id is %v, want [2 0]", c.Model.EOS)
	}
	var s stamp
	readJSON(t, &s, dir, "import.json")
	print, err := Fingerprint(src, o)
	if err != nil || s.Fingerprint != print || s.Source != "tiny.gguf" || s.Name != "Tiny test model" || s.AccuracyLevel != 4 {
		t.Errorf("import.json says %+v; the fingerprint is %s, %v", s, print, err)
	}
}

// TestExternalDataIsAligned holds that ONNX Runtime can map every tensor: the
// offsets, which model.onnx has as text, are multiples of a page.
func TestExternalDataIsAligned(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(imported(t, tiny(t, gguftest.Spec{Type: gguftest.Q4_1}), Options{}), modelFile))
	if err != nil {
		t.Fatal(err)
	}
	offsets := regexp.MustCompile(`offset\x12.([0-9]+)`).FindAllSubmatch(raw, -1)
	for _, o := range offsets {
		if n, err := strconv.Atoi(string(o[1])); err != nil || n%4096 != 0 {
			t.Errorf("a tensor begins at %s", o[1])
		}
	}
	// Two rotary tables, an embedding of three parts whose integers are declared
	// for the head too, and in both layers five matrices of three parts.
	if want := 2 + 4 + 2*5*3; len(offsets) != want {
		t.Errorf("%d external tensors, want %d", len(offsets), want)
	}
}

func TestImportIsRepeatable(t *testing.T) {
	src := tiny(t, gguftest.Spec{})
	dst := filepath.Join(t.TempDir(), "model")
	if err := Import(t.Context(), src, dst, Options{}); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(filepath.Join(dst, modelFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := Import(t.Context(), src, dst, Options{}); err != nil {
		t.Errorf("the same import again: %v", err)
	}
	if after, err := os.Stat(filepath.Join(dst, modelFile)); err != nil || !os.SameFile(before, after) {
		t.Errorf("a complete import was replaced (%v)", err)
	}
	if err := Import(t.Context(), src, dst, Options{AllLogits: true}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an import with other options over it: %v, want fs.ErrExist", err)
	}
	if err := os.Remove(filepath.Join(dst, stampFile)); err != nil {
		t.Fatal(err)
	}
	if err := Import(t.Context(), src, dst, Options{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("an import over a folder without a stamp: %v, want fs.ErrExist", err)
	}
}

func TestConcurrentImportsAgree(t *testing.T) {
	src := tiny(t, gguftest.Spec{})
	parent := t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := Import(t.Context(), src, filepath.Join(parent, "model"), Options{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := names(t, parent); len(got) != 1 {
		t.Errorf("left behind: %v", got)
	}
}

func TestCancelLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	parent := t.TempDir()
	steps, began := 0, false
	err := Import(ctx, tiny(t, gguftest.Spec{}), filepath.Join(parent, "model"), Options{Progress: func(done, total int64) {
		steps++
		began = began || done < total && len(names(t, parent)) == 1
		cancel()
	}})
	if !errors.Is(err, context.Canceled) || !began || steps != 1 {
		t.Errorf("got %v after %d steps (began: %t), want context.Canceled after the first", err, steps, began)
	}
	if got := names(t, parent); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

// TestLeftoversAreSwept holds that a folder whose maker was killed goes away
// with the next import of the same name, and that no other folder does.
func TestLeftoversAreSwept(t *testing.T) {
	parent := t.TempDir()
	for _, n := range []string{".model.importing-1", ".other.importing-1", ".model.importing-live"} {
		if err := os.Mkdir(filepath.Join(parent, n), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	_, unlock, err := makeDir(parent, "model") // its sweep takes both of model's: nobody holds them yet
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if got := names(t, parent); len(got) != 2 || got[1] != ".other.importing-1" {
		t.Fatalf("after the first sweep: %v", got)
	}
	if err := Import(t.Context(), tiny(t, gguftest.Spec{}), filepath.Join(parent, "model"), Options{}); err != nil {
		t.Fatal(err)
	}
	if got := names(t, parent); len(got) != 3 {
		t.Errorf("a folder in the making was swept: %v", got)
	}
}

func TestFingerprint(t *testing.T) {
	base := gguftest.Model(gguftest.Spec{})
	dir := t.TempDir()
	seen := map[string]string{}
	add := func(name string, f gguftest.File, o Options) {
		t.Helper()
		path := filepath.Join(dir, "m.gguf")
		if err := f.Write(path); err != nil {
			t.Fatal(err)
		}
		print, err := Fingerprint(path, o)
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[print]; ok {
			t.Errorf("%s and %s have one fingerprint", name, other)
		}
		seen[print] = name
	}
	add("the model", base, Options{})
	add("level 4", base, Options{AccuracyLevel: 4})
	add("all logits", base, Options{AllLogits: true})
	add("other weights", gguftest.Model(gguftest.Spec{Seed: 1}), Options{})
	renamed := gguftest.Model(gguftest.Spec{})
	renamed.Set("general.name", "Tiny Test model")
	add("another name", renamed, Options{})
	data := base.Tensor("blk.1.ffn_down.weight").Data
	data[len(data)-1] ^= 1
	add("a changed last byte of one tensor", base, Options{})
	if _, err := Fingerprint(dir, Options{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a folder: %v, want ErrInvalid", err)
	}
	if _, err := Fingerprint(filepath.Join(dir, "none"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v, want fs.ErrNotExist", err)
	}
}

func TestOptions(t *testing.T) {
	err := Import(t.Context(), tiny(t, gguftest.Spec{}), filepath.Join(t.TempDir(), "m"), Options{AccuracyLevel: 5})
	if !errors.Is(err, ErrUnsupported) {
		t.Errorf("level 5: %v, want ErrUnsupported", err)
	}
}
