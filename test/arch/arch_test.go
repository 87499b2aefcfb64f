package arch

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"io"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// arrows says whom a package of this module may import. A package that is not
// listed may not exist: a new one needs a sentence that none of the others
// already says.
var arrows = map[string][]string{
	"cmd/infer": {"internal/serve", "internal/caller", "internal/jobs", "internal/dapr", "internal/scale", "internal/simulate", "internal/gpu",
		"internal/engine/vllm", "internal/engine/onnx", "internal/store", "internal/admission", "internal/engine", "internal/openai"},

	// These never import each other; cmd/infer joins them.
	"internal/serve": {"internal/admission", "internal/caller", "internal/engine", "internal/translate", "internal/policy",
		"internal/openai"},
	"internal/jobs":        {"internal/store", "internal/translate", "internal/policy", "internal/openai"},
	"internal/dapr":        {"internal/store", "internal/admission", "internal/engine", "internal/openai"},
	"internal/scale":       {"internal/scale/externalscaler"},
	"internal/gpu":         {"internal/admission", "internal/engine", "internal/openai"},
	"internal/engine/vllm": {"internal/admission", "internal/engine", "internal/openai"},
	"internal/engine/onnx": {"internal/admission", "internal/engine", "internal/openai",
		"internal/engine/onnx/ort", "internal/engine/onnx/tokenizer", "internal/engine/onnx/gguf", "internal/engine/onnx/grammar",
		"internal/engine/onnx/encoder"},

	"internal/engine/onnx/ort":       {},
	"internal/engine/onnx/tokenizer": {},
	"internal/engine/onnx/gguf":      {},
	"internal/engine/onnx/encoder":   {"internal/engine/onnx/ort", "internal/engine/onnx/tokenizer"},
	"internal/engine/onnx/grammar":   {},

	"internal/admission": {"internal/openai"},
	// Who is asking, and what may they spend: keys, tokens of Entra ID, rates.
	"internal/caller":    {},
	"internal/engine":    {"internal/openai"},
	"internal/translate": {"internal/openai"},
	"internal/store":     {}, // what jobs writes through and dapr implements: neither may import the other
	"internal/openai":    {},

	// What a body may ask of an engine: translate knows its protocol, admission
	// when it runs, the engine how; none of them what a stranger may want.
	"internal/policy": {"internal/openai"},

	"internal/scale/externalscaler": {}, // generated

	// What a rule would have done: traffic, a fleet and KEDA's clock; nothing of
	// a running server.
	"internal/simulate": {},

	// Doubles and builders for tests: see onlyTests.
	"internal/engine/onnx/gguf/gguftest": {},
	"internal/engine/onnx/ort/orttest":   {},
	"internal/dapr/daprtest":             {},
	"internal/store/storetest":           {"internal/store"},
	"internal/gpu/gputest":               {},

	"test/arch":      {},
	"test/protocols": {"internal/serve", "internal/caller", "internal/policy", "internal/engine", "internal/openai"},
	"test/deploy":    {"internal/simulate"},
	"test/recital":   {"internal/engine/onnx/gguf/gguftest"},
	"test/scripts":   {},
	"test/dapr":      {},
	"test/vllm":      {"internal/serve", "internal/policy", "internal/engine", "internal/engine/vllm"},
}

// onlyTests lists what tests may import besides the arrows of their package.
var onlyTests = []string{"internal/engine/onnx/gguf/gguftest", "internal/engine/onnx/ort/orttest", "internal/store/storetest", "internal/dapr/daprtest", "internal/gpu/gputest"}

// listed is the part of `go list -json` that the rules read.
type listed struct {
	ImportPath, Dir, Doc, Name                   string
	Imports, TestImports, XTestImports           []string
	GoFiles, CgoFiles, TestGoFiles, XTestGoFiles []string
	IgnoredGoFiles                               []string
}

func (p listed) path() string { return strings.TrimPrefix(p.ImportPath, "infer/") }

// files returns the full names of the package's files.
func (p listed) files(lists ...[]string) []string {
	var full []string
	for _, name := range slices.Concat(lists...) {
		full = append(full, filepath.Join(p.Dir, name))
	}
	return full
}

// code leaves out what protoc wrote.
func (p listed) code() []string {
	all := p.files(p.GoFiles, p.CgoFiles, slices.DeleteFunc(slices.Clone(p.IgnoredGoFiles), isTest))
	return slices.DeleteFunc(all, func(name string) bool { return strings.HasSuffix(name, ".pb.go") })
}

// tests counts those behind a build tag in, which go list does not tell from
// other files.
func (p listed) tests() []string {
	ignored := slices.DeleteFunc(slices.Clone(p.IgnoredGoFiles), func(name string) bool { return !isTest(name) })
	return p.files(p.TestGoFiles, p.XTestGoFiles, ignored)
}

func isTest(name string) bool { return strings.HasSuffix(name, "_test.go") }

// packages asks the Go tool for every package of the module.
func packages(t *testing.T) []listed {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json", "infer/...")
	var errors strings.Builder
	cmd.Stderr = &errors
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &errors)
	}
	var all []listed
	for dec := jsontext.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := json.UnmarshalDecode(dec, &p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatalf("go list: %v", err)
		}
		all = append(all, p)
	}
	if len(all) < 5 {
		t.Fatalf("go list names %d packages; the rules would hold over nothing", len(all))
	}
	return all
}

func TestArrows(t *testing.T) {
	for _, p := range packages(t) {
		allowed, ok := arrows[p.path()]
		if !ok {
			t.Errorf("%s: no such room; add it to the arrows with a reason, or move its code", p.path())
			continue
		}
		check := func(imports, allowed []string) {
			for _, imported := range imports {
				to, inside := strings.CutPrefix(imported, "infer/")
				if inside && to != p.path() && !slices.Contains(allowed, to) {
					t.Errorf("%s imports %s, which is no allowed arrow", p.path(), to)
				}
			}
		}
		check(p.Imports, allowed)
		check(slices.Concat(p.TestImports, p.XTestImports), slices.Concat(allowed, onlyTests))
	}
}

func TestForbiddenImports(t *testing.T) {
	for _, p := range packages(t) {
		for _, imported := range p.Imports {
			switch {
			case imported == "os/exec" && !strings.HasPrefix(p.path(), "internal/engine") && !slices.Contains(onlyTests, p.path()):
				t.Errorf("%s imports os/exec; only an engine starts processes", p.path())
			case strings.HasSuffix(imported, "/promauto"):
				t.Errorf("%s imports promauto; register on the registry that is passed in", p.path())
			}
		}
	}
}

func TestPackageDocs(t *testing.T) {
	for _, p := range packages(t) {
		want := "Package " + p.Name + " "
		if p.Name == "main" {
			want = "Command " + filepath.Base(p.ImportPath) + " "
		}
		if !strings.HasPrefix(p.Doc, want) {
			t.Errorf("%s: the package's comment must begin with %q, got %q", p.path(), want, p.Doc)
		}
	}
}
