package scripts

import (
	"archive/zip"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// wheel makes a wheel that holds files, and a requirements file that pins it
// by hash and finds it without the network.
func wheel(t *testing.T, hash string, files map[string]string) (requirements string) {
	t.Helper()
	folder := t.TempDir()
	name := filepath.Join(folder, "demo-1.0-py3-none-any.whl")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	z := zip.NewWriter(f)
	files["demo-1.0.dist-info/METADATA"] = "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n"
	files["demo-1.0.dist-info/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
	files["demo-1.0.dist-info/RECORD"] = ""
	for name, text := range files {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if hash == "" {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		hash = fmt.Sprintf("%x", sha256.Sum256(b))
	}
	requirements = filepath.Join(folder, "requirements.txt")
	text := fmt.Sprintf("--no-index\n--find-links %s\ndemo==1.0 --hash=sha256:%s\n", folder, hash)
	if err := os.WriteFile(requirements, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return requirements
}

// fetch runs scripts/fetch.sh.
func fetch(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "../../scripts/fetch.sh", args...).CombinedOutput()
	return string(out), err
}

// tree lists what is in a folder, by name and content.
func tree(t *testing.T, folder string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all = append(all, filepath.Base(path)+"="+string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func TestFetch(t *testing.T) {
	requirements := wheel(t, "", map[string]string{"demo/lib.so.1.0": "library", "demo/LICENSE": "free", "demo/other": "x"})
	folder := filepath.Join(t.TempDir(), "a", "b")
	target := filepath.Join(folder, "lib.so.1")
	if out, err := fetch(t, requirements, "demo/lib.so.1.0", target); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := tree(t, folder); got != "LICENSE=free lib.so.1=library" {
		t.Errorf("got %q, want the member, its licence and nothing else", got)
	}
	// The second time nothing is read, not even the requirements.
	if out, err := fetch(t, "/nowhere", "demo/absent", target); err != nil || out != "" {
		t.Errorf("the second time: %v\n%s", err, out)
	}
}

// What is not the pinned file, or does not hold what it should, leaves nothing
// behind that a next start would take for whole.
func TestFetchRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, hash, member, want string
	}{
		{"another file than the pinned one", strings.Repeat("0", 64), "demo/lib", "the download broke off; run it again"},
		{"a wheel without the member", "", "demo/absent", "demo/absent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			folder := t.TempDir()
			out, err := fetch(t, wheel(t, tt.hash, map[string]string{"demo/lib": "library"}), tt.member, filepath.Join(folder, "lib"))
			if err == nil || !strings.Contains(out, tt.want) {
				t.Errorf("%v; want %q in:\n%s", err, tt.want, out)
			}
			if got := tree(t, folder); got != "" {
				t.Errorf("left behind: %s", got)
			}
		})
	}
}
