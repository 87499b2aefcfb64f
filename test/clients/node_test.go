package clients

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// node prepares a script of the folder node. Modules are looked for beside a
// script, so it runs from a folder where a link leads to the packages.
func node(t *testing.T, script string, args ...string) *exec.Cmd {
	t.Helper()
	folder := t.TempDir()
	if err := os.CopyFS(folder, os.DirFS("node")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(fromMake(t, "INFER_TEST_NODE_MODULES"), filepath.Join(folder, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return exec.CommandContext(timeout(t), "node", append([]string{filepath.Join(folder, script)}, args...)...)
}

// Each script is a program of tests: it prints what failed and exits with 1.
func TestNode(t *testing.T) {
	for _, script := range []string{"openai.mjs", "ai.mjs", "anthropic.mjs"} {
		t.Run(script, func(t *testing.T) {
			s := besides(t, "--context=1024")
			if out, err := node(t, script, s.url, model, embedder).CombinedOutput(); err != nil {
				t.Errorf("%v\n%s", err, out)
			}
			s.until("all slots to be free", func() bool { return s.metric("infer_requests_running") == 0 })
		})
	}
}

// The clients are ready before the server is, so that the first answer is a
// refusal.
func TestNodeComesBackWhileLoading(t *testing.T) {
	cmd := node(t, "loading.mjs")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stdout)
	if line, err := lines.ReadString('\n'); err != nil || line != "started\n" {
		t.Fatalf("loading.mjs said %q, %v\n%s", line, err, &stderr)
	}
	s := start(t, "--cache", t.TempDir(), "--hold=0s") // the model must be imported anew
	if _, err := fmt.Fprintf(stdin, "%s\n%s\n", s.url, model); err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	out, _ := io.ReadAll(lines) // what is missing makes Wait fail
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s%s", err, out, &stderr)
	}
}
