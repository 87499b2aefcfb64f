// Command bench measures infer against its own bare engine and against
// llama.cpp, pair by pair in one run. See README.md for what the numbers mean.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdin, os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, getenv func(string) string, in io.Reader, out, stderr io.Writer) error {
	if len(args) > 0 && args[0] == "llama" {
		return runLlama(args[1:], in, out, stderr)
	}
	c, err := parseConfig(args, getenv, stderr)
	if err != nil {
		return err
	}
	folder, err := os.MkdirTemp("", "infer-bench-")
	if err != nil {
		return fmt.Errorf("make a temporary folder: %w; set TMPDIR to a writable one", err)
	}
	defer func() { _ = os.RemoveAll(folder) }() // the system clears what is left
	p := &plan{config: c, stderr: stderr, rng: rand.New(rand.NewPCG(c.seed, 0))}
	if slices.Contains(c.suites, baseSuite) {
		if p.bare, err = buildBare(ctx, c.root, folder, stderr); err != nil {
			return err
		}
	}
	r := newReport(c)
	err = p.runSuites(ctx, r, func() error {
		if c.json == "" {
			return nil
		}
		return writeJSON(c.json, r)
	})
	// What was found before a fault took minutes and is true.
	return errors.Join(err, r.print(out))
}

func writeJSON(path string, r *report) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write report: %w; name a writable file with --json", err)
	}
	return nil
}

// config is the command line.
type config struct {
	infer, root, model, library, cache, llama, json string
	encoder, python                                 string // of the embeddings suite
	suites                                          []string
	repeats, prompt, steps, streams, context        int
	settings                                        []setting
	seed                                            uint64
}

// parseConfig reports every fault at once.
func parseConfig(args []string, getenv func(string) string, stderr io.Writer) (config, error) {
	var c config
	var settings, suites string
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&c.root, "root", "..", "the checkout, for the bare engine")
	fs.StringVar(&c.infer, "infer", "", "the program to measure (default bin/infer of the checkout)")
	fs.StringVar(&c.model, "model", getenv("INFER_TEST_MODEL_GGUF"), "GGUF file that both engines run ($INFER_TEST_MODEL_GGUF)")
	fs.StringVar(&c.library, "library", getenv("INFER_TEST_ONNXRUNTIME"), "libonnxruntime.so ($INFER_TEST_ONNXRUNTIME)")
	fs.StringVar(&c.llama, "llama", "", "folder of llama.cpp's libraries, as scripts/fetch-llama.sh prints it")
	fs.StringVar(&c.cache, "cache", "", "folder for the imported model (default infer in the user's cache)")
	fs.StringVar(&c.json, "json", "", "file for the results")
	fs.StringVar(&c.encoder, "encoder", getenv("INFER_TEST_EMBEDDING_MODEL"), "folder of an ONNX encoder for the suite embeddings ($INFER_TEST_EMBEDDING_MODEL)")
	fs.StringVar(&c.python, "python", getenv("INFER_TEST_PYTHON"), "python with onnxruntime and tokenizers for the suite embeddings ($INFER_TEST_PYTHON)")
	fs.StringVar(&suites, "suite", baseSuite, "what to measure, in this order: "+strings.Join(suiteNames(), ", "))
	fs.StringVar(&settings, "settings", "1,2,2+spin", "threads, with spinning or without")
	fs.IntVar(&c.repeats, "repeats", 5, "measurements of each kind")
	fs.IntVar(&c.prompt, "prompt", 256, "tokens of a prompt")
	fs.IntVar(&c.steps, "steps", 64, "measured tokens of a stream")
	fs.IntVar(&c.streams, "streams", 4, "streams at once where there are many")
	fs.IntVar(&c.context, "context", 1024, "tokens that prompt and completion may have")
	fs.Uint64Var(&c.seed, "seed", 1, "seed of the prompts")
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	var err error
	c.settings, err = parseSettings(settings)
	faults := []error{err}
	c.suites, err = parseSuites(suites)
	faults = append(faults, err)
	if fs.NArg() > 0 {
		faults = append(faults, fmt.Errorf("unknown argument %q", fs.Arg(0)))
	}
	if c.cache == "" {
		dir, err := os.UserCacheDir()
		faults = append(faults, err)
		c.cache = filepath.Join(dir, "infer")
	}
	c.infer = cmp.Or(c.infer, filepath.Join(c.root, "bin", "infer"))
	return c, errors.Join(append(faults, c.validate()...)...)
}

// needs reports whether one of the suites does. The base is listed nowhere; it
// needs llama.cpp.
func (c config) needs(this func(suite) bool) bool {
	return slices.ContainsFunc(c.suites, func(name string) bool {
		if name == baseSuite {
			return this(suite{llama: true})
		}
		return this(suites[name])
	})
}

func (c config) validate() (faults []error) {
	const fetched = "make fetches it for its targets"
	for _, f := range []struct {
		flag, path, remedy string
		needed             bool
	}{
		{"infer", c.infer, "run make build", true},
		{"model", c.model, fetched, true},
		{"library", c.library, fetched, true},
		{"llama", c.llama, "run scripts/fetch-llama.sh, which prints the folder", c.needs(func(s suite) bool { return s.llama })},
		{"encoder", c.encoder, fetched, c.needs(func(s suite) bool { return s.encoder })},
		{"python", c.python, fetched, c.needs(func(s suite) bool { return s.encoder })},
	} {
		if !f.needed {
			continue
		}
		if _, err := os.Stat(f.path); err != nil {
			faults = append(faults, fmt.Errorf("--%s: %w; %s", f.flag, err, f.remedy))
		}
	}
	for name, v := range map[string]int{"repeats": c.repeats, "prompt": c.prompt, "steps": c.steps} {
		if v < 1 {
			faults = append(faults, fmt.Errorf("--%s: must be over 0, got %d", name, v))
		}
	}
	if c.streams < 2 {
		faults = append(faults, fmt.Errorf("--streams: must be over 1, got %d", c.streams))
	}
	if c.prompt > maxBatch {
		faults = append(faults, fmt.Errorf("--prompt: at most %d, got %d", maxBatch, c.prompt))
	}
	if need := windowTokens(c.streams, c.prompt, c.steps); c.context < need {
		faults = append(faults, fmt.Errorf("--context: must be at least %d for these prompts and steps, got %d", need, c.context))
	}
	return faults
}
