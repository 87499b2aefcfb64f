package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Budgets of the house style.
const (
	maxFileLines     = 500
	maxFunctionLines = 80
)

// onlyMain lists what main alone may use, so that a test can start the whole
// program.
var onlyMain = []string{"os.Exit", "os.Args", "os.Getenv", "os.LookupEnv", "os.Environ", "signal.Notify", "signal.NotifyContext",
	"log.Fatal", "log.Fatalf", "flag.Parse", "slog.Default", "slog.SetDefault"}

// neverInTests would make a test flaky, or green without having run.
var neverInTests = []string{"time.Sleep", "t.Skip", "t.Skipf", "t.SkipNow", "b.Skip", "b.Skipf", "tb.Skip", "tb.Skipf"}

// source is one parsed file.
type source struct {
	name string
	set  *token.FileSet
	file *ast.File
	text []byte
}

func parse(t *testing.T, name string) source {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	set := token.NewFileSet()
	file, err := parser.ParseFile(set, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return source{name, set, file, text}
}

// lines is how many lines n spans.
func (s source) lines(n ast.Node) int {
	return s.set.Position(n.End()).Line - s.set.Position(n.Pos()).Line + 1
}

// uses calls report for every x.y of the file that names lists.
func (s source) uses(names []string, report func(at token.Position, name string)) {
	ast.Inspect(s.file, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok {
				for _, name := range names {
					if x.Name+"."+sel.Sel.Name == name {
						report(s.set.Position(n.Pos()), name)
					}
				}
			}
		}
		return true
	})
}

func TestBudgets(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range append(p.code(), p.tests()...) {
			s := parse(t, name)
			if n := bytes.Count(s.text, []byte("\n")); n > maxFileLines {
				t.Errorf("%s has %d lines, over %d", name, n, maxFileLines)
			}
			for _, d := range s.file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && s.lines(f) > maxFunctionLines {
					t.Errorf("%s: %s has %d lines, over %d", name, f.Name.Name, s.lines(f), maxFunctionLines)
				}
			}
		}
	}
}

func TestOnlyMain(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range p.code() {
			s := parse(t, name)
			if (p.Name != "main" || filepath.Base(name) != "main.go") && !slices.Contains(onlyTests, p.path()) {
				s.uses(onlyMain, func(at token.Position, what string) {
					t.Errorf("%s: %s belongs to main.go", at, what)
				})
			}
			for _, d := range s.file.Decls {
				if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "init" {
					t.Errorf("%s: init hides an order; call it from main", name)
				}
			}
		}
	}
}

func TestTestsRunAndDoNotSleep(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range p.tests() {
			parse(t, name).uses(neverInTests, func(at token.Position, what string) {
				t.Errorf("%s: %s in a test", at, what)
			})
		}
	}
}

func TestExportedNamesHaveDocs(t *testing.T) {
	for _, p := range packages(t) {
		for _, name := range p.code() {
			s := parse(t, name)
			for _, d := range s.file.Decls {
				for _, undocumented := range undocumented(d) {
					t.Errorf("%s: %s has no doc comment", name, undocumented)
				}
			}
		}
	}
}

// undocumented returns the exported names of a declaration that no comment
// explains. A comment above a group, or behind a line of it, explains too.
func undocumented(d ast.Decl) []string {
	var names []string
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Name.IsExported() && d.Doc == nil && !unexportedReceiver(d) {
			names = append(names, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() && d.Doc == nil && spec.Doc == nil {
					names = append(names, spec.Name.Name)
				}
			case *ast.ValueSpec:
				for _, n := range spec.Names {
					if n.IsExported() && d.Doc == nil && spec.Doc == nil && spec.Comment == nil {
						names = append(names, n.Name)
					}
				}
			}
		}
	}
	return names
}

func unexportedReceiver(f *ast.FuncDecl) bool {
	if f.Recv == nil {
		return false
	}
	typ := f.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && !id.IsExported()
}

// The rules must see what they forbid.
func TestUsesFinds(t *testing.T) {
	name := filepath.Join(t.TempDir(), "x.go")
	if err := os.WriteFile(name, []byte("package x\n\nimport \"os\"\n\nfunc f() { os.Exit(1) }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var found []string
	parse(t, name).uses(onlyMain, func(_ token.Position, what string) { found = append(found, what) })
	if got := strings.Join(found, " "); got != "os.Exit" {
		t.Errorf("found %q, want os.Exit", got)
	}
}
