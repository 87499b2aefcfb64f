package encoder

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	"infer/internal/engine/onnx/ort"
	"infer/internal/engine/onnx/tokenizer"
)

// testEnv is a path that make test provides.
func testEnv(tb testing.TB, name string) string {
	tb.Helper()
	v := os.Getenv(name)
	if v == "" {
		tb.Fatalf("%s is not set; run the tests with make test, which fetches what they need", name)
	}
	return v
}

// quiet discards the log.
var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func library(tb testing.TB) *ort.Library {
	tb.Helper()
	lib, err := ort.Open(testEnv(tb, "INFER_TEST_ONNXRUNTIME"), quiet)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(lib.Close)
	return lib
}

// tinyVocab is what the graphs of testdata/tiny know; see
// test/reference/tiny_encoders.py.
const tinyVocab = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\ngood\nbad\nparis\n"

// tiny is a folder of a tiny graph with more files.
func tiny(tb testing.TB, graph string, files map[string]string) string {
	tb.Helper()
	dir := tb.TempDir()
	b, err := os.ReadFile(filepath.Join("testdata/tiny", graph+".onnx"))
	if err != nil {
		tb.Fatal(err)
	}
	all := map[string]string{"model.onnx": string(b), "vocab.txt": tinyVocab}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			tb.Fatal(err)
		}
	}
	return dir
}

// open loads a model that closes with the test.
func open(tb testing.TB, cfg Config) *Encoder {
	tb.Helper()
	e, err := Open(library(tb), cfg, quiet)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// start runs a model until the test ends.
func start(tb testing.TB, cfg Config) *Encoder {
	tb.Helper()
	if cfg.Threads == 0 {
		cfg.Threads = 1
	}
	e := open(tb, cfg)
	run(tb, e)
	return e
}

func run(tb testing.TB, e *Encoder) {
	tb.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			tb.Errorf("Run() = %v", err)
		}
	})
}

func startReal(tb testing.TB) *Encoder {
	tb.Helper()
	return start(tb, Config{Dir: testEnv(tb, "INFER_TEST_EMBEDDING_MODEL"), Threads: 2})
}

// vectors runs whole texts, cut to what the model takes.
func vectors(tb testing.TB, e *Encoder, texts ...string) [][]float32 {
	tb.Helper()
	out, err := e.Vectors(tb.Context(), framed(e, texts...))
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

func framed(e *Encoder, texts ...string) []tokenizer.Framed {
	var list []tokenizer.Framed
	for _, t := range texts {
		list = append(list, e.Frame(e.Tokens(t), e.MaxTokens()))
	}
	return list
}
