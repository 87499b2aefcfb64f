package gguf

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// formatVersion changes whenever the importer writes something else for the
// same input, so that caches are filled anew.
const formatVersion = 2

const (
	modelFile = "model.onnx"
	stampFile = "import.json"
)

// Causes that callers tell apart with errors.Is. The message names what was
// found and, for ErrUnsupported, what to do about it.
var (
	// ErrUnsupported is a sound file that asks for something that is not
	// imported: another architecture, quantisation, tokenizer or option.
	ErrUnsupported = errors.New("gguf: not supported")
	// ErrInvalid is a file that is damaged, truncated or no GGUF file.
	ErrInvalid = errors.New("gguf: invalid file")
)

// Options choose between graphs for the same weights.
type Options struct {
	// AccuracyLevel is MatMulNBits' accuracy_level: 4 computes with 8-bit
	// integers and is the fast one, 0 with fp32 and is for exact comparisons.
	AccuracyLevel int
	// AllLogits makes the graph return logits for all positions instead of
	// the last one only.
	AllLogits bool
	// Float16 writes a graph whose activations, scales, norms and KV cache are
	// fp16 and whose logits are fp32: ONNX Runtime's CUDA provider has
	// GroupQueryAttention for 16-bit types only (its docs/OperatorKernels.md).
	// A weight beyond fp16's range is ErrUnsupported.
	Float16 bool
	// Progress, if set, is told after every step how many bytes of the
	// weights have been written and how many there will be.
	Progress func(done, total int64)
}

func (o Options) validate() error {
	if o.AccuracyLevel < 0 || o.AccuracyLevel > 4 {
		return fmt.Errorf("%w: accuracy level %d; use 0 (fp32) or 4 (int8)", ErrUnsupported, o.AccuracyLevel)
	}
	return nil
}

// stamp is import.json, the last file that an import writes: a folder with a
// stamp is complete.
type stamp struct {
	FormatVersion int    `json:"format_version"`
	Fingerprint   string `json:"fingerprint"`
	Source        string `json:"source"`
	SourceBytes   int64  `json:"source_bytes"`
	Name          string `json:"name,omitempty"`
	License       string `json:"license,omitempty"`
	AccuracyLevel int    `json:"accuracy_level"`
	AllLogits     bool   `json:"all_logits"`
	Float16       bool   `json:"float16,omitempty"`
}

// Import writes the model of the GGUF file src as the folder dst. It works in
// a temporary folder beside dst, which becomes dst by one rename once all of
// it is on the disk; after an error, or when ctx ends, nothing is left behind.
//
// When dst already is the complete import of this source with these options,
// Import returns nil without touching it, whoever wrote it; so two processes
// may import the same file at once. Any other dst is an error that matches
// fs.ErrExist.
func Import(ctx context.Context, src, dst string, o Options) error {
	if err := o.validate(); err != nil {
		return err
	}
	f, done, err := open(src)
	if err != nil {
		return err
	}
	defer done()
	m, err := newLlama(f)
	if err != nil {
		return err
	}
	s := stamp{
		FormatVersion: formatVersion, Source: filepath.Base(src), SourceBytes: f.size,
		Name: f.meta.text("general.name"), License: f.meta.text("general.license"),
		AccuracyLevel: o.AccuracyLevel, AllLogits: o.AllLogits, Float16: o.Float16,
	}
	if s.Fingerprint, err = f.fingerprint(o); err != nil {
		return err
	}
	if there, err := already(dst, s); there || err != nil {
		return err
	}
	err = replaceDir(dst, func(dir string) error { return m.writeFolder(ctx, dir, o, s) })
	if errors.Is(err, fs.ErrExist) { // another process was first
		_, err = already(dst, s)
	}
	return err
}

// already says whether dst is this very import. A dst that is something else
// is an error.
func already(dst string, want stamp) (bool, error) {
	if _, err := os.Lstat(dst); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, fmt.Errorf("import gguf: %w", err)
	}
	var have stamp
	raw, err := os.ReadFile(filepath.Join(dst, stampFile))
	if err != nil || json.Unmarshal(raw, &have) != nil || have.Fingerprint != want.Fingerprint {
		return false, fmt.Errorf("import gguf: %s holds something else: %w", dst, fs.ErrExist)
	}
	return true, nil
}

// writeFolder writes the files of the import, the stamp last.
func (m *llama) writeFolder(ctx context.Context, dir string, o Options, s stamp) error {
	b := newBuilder(m, o)
	if err := b.build(); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, weightsFile), func(f *os.File) error {
		return b.w.write(ctx, f, o.Progress)
	}); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, modelFile), func(f *os.File) error {
		_, err := f.Write(b.model())
		return err
	}); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		v    any
	}{
		{"genai_config.json", newConfig(m)},
		{"tokenizer.json", m.tok.json()},
		{"tokenizer_config.json", m.tok.config(m.context)},
		{stampFile, s},
	} {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, part.name), func(f *os.File) error {
			e := json.NewEncoder(f)
			e.SetEscapeHTML(false)
			e.SetIndent("", "  ")
			return e.Encode(part.v)
		}); err != nil {
			return err
		}
	}
	return nil
}

// Fingerprint identifies what Import would write, cheaply enough to be taken
// at every start: it reads the head of the file and three samples of every
// tensor. It covers the importer's format version, the options that change
// the output, the size of the file, all of its metadata and tensor directory,
// and the first, middle and last 512 bytes of each tensor. Any conversion or
// fine-tuning changes those; a single flipped bit elsewhere goes unseen.
func Fingerprint(src string, o Options) (string, error) {
	if err := o.validate(); err != nil {
		return "", err
	}
	f, done, err := open(src)
	if err != nil {
		return "", err
	}
	defer done()
	return f.fingerprint(o)
}

func (f *file) fingerprint(o Options) (string, error) {
	const sample = 512
	h := sha256.New()
	h.Write(fmt.Appendf(nil, "gguf import %d accuracy %d all %t float16 %t size %d\n",
		formatVersion, o.AccuracyLevel, o.AllLogits, o.Float16, f.size))
	if _, err := io.Copy(h, io.NewSectionReader(f.r, 0, f.dataStart)); err != nil {
		return "", fmt.Errorf("fingerprint gguf: %w", err)
	}
	for i := range f.tensors {
		t := &f.tensors[i]
		for _, at := range []int64{0, (t.bytes - sample) / 2, t.bytes - sample} {
			at = max(at, 0)
			part := io.NewSectionReader(f.r, t.offset+at, min(sample, t.bytes-at))
			if _, err := io.Copy(h, part); err != nil {
				return "", fmt.Errorf("fingerprint gguf: %w", err)
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:16]), nil
}

// open opens and parses src; done closes it.
func open(src string) (f *file, done func(), err error) {
	in, err := os.Open(src)
	if err != nil {
		return nil, nil, fmt.Errorf("open gguf: %w", err)
	}
	done = func() { _ = in.Close() } // only read from
	info, err := in.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %s is not a regular file", ErrInvalid, src)
	}
	if err == nil {
		f, err = parse(in, info.Size())
	}
	if err != nil {
		done()
		return nil, nil, fmt.Errorf("%s: %w", filepath.Base(src), err)
	}
	return f, done, nil
}
