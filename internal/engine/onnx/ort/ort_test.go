package ort

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// library opens the real library, whose own messages go to log.
func library(tb testing.TB, log *bytes.Buffer) *Library {
	tb.Helper()
	path := os.Getenv("INFER_TEST_ONNXRUNTIME")
	if path == "" {
		tb.Fatal("INFER_TEST_ONNXRUNTIME is not set; run the tests with make test, which fetches the library")
	}
	lib, err := Open(path, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(lib.Close)
	return lib
}

// addModel is an ONNX file with one node, C = A + B, of fp32 [rows, 3]. It says
// that C has the given number of columns.
func addModel(columns byte) []byte {
	str := func(n byte, s string) []byte { return append([]byte{n<<3 | 2, byte(len(s))}, s...) }
	num := func(n, v byte) []byte { return []byte{n << 3, v} }
	msg := func(n byte, parts ...[]byte) []byte { return str(n, string(bytes.Join(parts, nil))) }
	value := func(n byte, name string, columns byte) []byte {
		shape := msg(2, msg(1, str(2, "rows")), msg(1, num(1, columns)))
		return msg(n, str(1, name), msg(2, msg(1, num(1, 1), shape)))
	}
	graph := msg(7, msg(1, str(1, "A"), str(1, "B"), str(2, "C"), str(4, "Add")), str(2, "g"),
		value(11, "A", 3), value(11, "B", 3), value(12, "C", columns))
	return bytes.Join([][]byte{num(1, 10), graph, msg(8, num(2, 17))}, nil)
}

func writeModel(tb testing.TB, content []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "model.onnx")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		tb.Fatal(err)
	}
	return path
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	none := filepath.Join(dir, "none.so")
	for name, source := range map[string]string{
		"stranger": `int stranger;`,
		"old": `typedef struct { const void *(*get)(unsigned); const char *(*version)(void); } base;
			static const void *get(unsigned v) { return v <= 20 ? (void *)1 : 0; }
			static const char *version(void) { return "1.20.1"; }
			static base b = { get, version };
			const base *OrtGetApiBase(void) { return &b; }`,
	} {
		c := exec.Command("gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", filepath.Join(dir, name+".so"))
		c.Stdin = strings.NewReader(source)
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, tc := range []struct {
		path string
		want error
		text string
	}{
		{none, ErrLibraryMissing, "none.so"},
		{filepath.Join(dir, "stranger.so"), ErrLibraryMissing, "OrtGetApiBase"},
		{filepath.Join(dir, "old.so"), ErrLibraryTooOld, "1.20.1, need " + MinVersion},
	} {
		_, err := Open(tc.path, slog.New(slog.DiscardHandler))
		if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("Open(%s) = %v, want %v with %q", tc.path, err, tc.want, tc.text)
		}
	}
}

func TestBoundRun(t *testing.T) {
	lib := library(t, &bytes.Buffer{})
	s, err := lib.NewSession(writeModel(t, addModel(3)), SessionConfig{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if in := s.Inputs(); len(in) != 2 || in[1].Name != "B" || in[0].Type != Float32 || in[0].Shape[0] != -1 || in[0].Shape[1] != 3 {
		t.Errorf("inputs %+v", in)
	}
	buf, err := s.NewBuffer(4 * 3 * 4)
	if err != nil {
		t.Fatal(err)
	}
	defer buf.Close()
	b, err := s.NewBinding()
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	var views []*Tensor
	view := func(row, rows int) *Tensor {
		v, err := buf.Tensor(Float32, row*12, int64(rows), 3)
		if err != nil {
			t.Fatal(err)
		}
		views = append(views, v)
		return v
	}
	defer func() {
		for _, v := range views {
			v.Close()
		}
	}()
	all := view(0, 4).Float32s()
	for i := range all {
		all[i] = float32(i)
	}
	// Row 2 + row 3, once into memory of the library's and once in place.
	bind(t, b.Input("A", view(2, 1)), b.Input("B", view(3, 1)), b.OutputToHost("C"), s.Run(t.Context(), b))
	got, err := b.Fetch("C")
	if err != nil {
		t.Fatal(err)
	}
	if f := got.Float32s(); f[0] != 15 || f[2] != 19 || got.Shape[0] != 1 {
		t.Errorf("sum %v of shape %v", f, got.Shape)
	}
	got.Close()
	bind(t, b.Output("C", views[1]), s.Run(t.Context(), b))
	if all[6] != 15 || all[8] != 19 || all[9] != 9 {
		t.Errorf("in place: %v", all)
	}
	if _, err := b.Fetch("D"); err == nil {
		t.Error("an output that is not bound was fetched")
	}
	if _, err := buf.Tensor(Float32, 40, 1, 3); err == nil {
		t.Error("a view beyond its buffer was allowed")
	}

	o, err := lib.newRunOptions()
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	o.terminate()
	if err := s.run(b, o); !errors.Is(err, errTerminated) {
		t.Errorf("terminated run = %v", err)
	}
	gone, cancel := context.WithCancelCause(t.Context())
	left := errors.New("left")
	cancel(left)
	if err := s.Run(gone, b); err != left {
		t.Errorf("run for who left = %v", err)
	}
}

func bind(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestNewSessionRefuses(t *testing.T) {
	lib := library(t, &bytes.Buffer{})
	good := addModel(3)
	if _, err := lib.NewSession(filepath.Join(t.TempDir(), "none"), SessionConfig{}); err == nil {
		t.Error("a missing file was loaded")
	}
	if _, err := lib.NewSession(writeModel(t, good), SessionConfig{CUDA: true}); !errors.Is(err, ErrNoCUDA) {
		t.Errorf("CUDA on a CPU library = %v, want ErrNoCUDA", err)
	}
	if _, err := lib.NewSession(writeModel(t, good[:len(good)/2]), SessionConfig{}); err == nil {
		t.Error("half a file was loaded")
	}
}

func TestLibraryLogsThroughUs(t *testing.T) {
	var log bytes.Buffer
	lib := library(t, &log)
	s, err := lib.NewSession(writeModel(t, addModel(4)), SessionConfig{Threads: 1}) // a shape that is not so
	if err == nil {
		s.Close()
	}
	if !strings.Contains(log.String(), "onnx runtime") || !strings.Contains(log.String(), "level=WARN") {
		t.Errorf("the library's warning is not in the log: %q (err %v)", log.String(), err)
	}
}

// FuzzModelFile changes bytes of a model file: the library may refuse or load
// it, and must do so without taking the process down or much memory.
func FuzzModelFile(f *testing.F) {
	good := addModel(3)
	f.Add(good)
	f.Add(good[:20])
	var log bytes.Buffer
	lib := library(f, &log)
	f.Fuzz(func(t *testing.T, content []byte) {
		s, err := lib.NewSession(writeModel(t, content), SessionConfig{Threads: 1})
		if err == nil {
			s.Close()
		}
	})
}
