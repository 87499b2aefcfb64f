package scripts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// packages runs scripts/node.sh with one more variable.
func packages(t *testing.T, from, modules, variable string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "../../scripts/node.sh", from, modules)
	cmd.Env = append(os.Environ(), variable)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestNodePackages(t *testing.T) {
	modules := filepath.Join(t.TempDir(), "a", "node-1", "node_modules")
	// Without the network it must break off, and leave nothing that a next
	// start would take for whole.
	out, err := packages(t, "../clients/node", modules, "npm_config_offline=true")
	if err == nil || !strings.Contains(out, "the download broke off; run it again") {
		t.Errorf("without the network: %v\n%s", err, out)
	}
	if got := tree(t, filepath.Dir(filepath.Dir(modules))); got != "" {
		t.Errorf("left behind: %.200s", got)
	}
	// What is there is whole and not looked into.
	if err := os.MkdirAll(modules, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := packages(t, "/nowhere", modules, "npm_config_offline=true"); err != nil || out != "" {
		t.Errorf("the second time: %v\n%s", err, out)
	}
}

// The clients are pinned by hash alone: where they come from is the user's
// setting of npm.
func TestNodeLock(t *testing.T) {
	lock, err := os.ReadFile("../clients/node/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	text := string(lock)
	if strings.Contains(text, `"resolved"`) || strings.Contains(text, "https://") {
		t.Error("package-lock.json holds addresses: take out resolved and funding")
	}
	if versions, hashes := strings.Count(text, `"version"`), strings.Count(text, `"integrity"`); versions == 0 || versions != hashes {
		t.Errorf("%d versions and %d hashes", versions, hashes)
	}
}
