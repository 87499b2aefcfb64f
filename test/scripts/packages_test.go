package scripts

import (
	"strings"
	"testing"
)

// What is missing is installed by whoever may, and named where nobody can.
func TestPackages(t *testing.T) {
	const apt = `echo "$0 $*" | sed 's:.*/::' >&2` + "\n"
	for _, tt := range []struct {
		name     string
		programs map[string]string
		code     int
		says     []string
		silent   []string
	}{
		{"by root", map[string]string{"id": "echo 0", "apt-get": apt}, 0, []string{"apt-get update", "apt-get install", " absent other"}, []string{"present", "sudo"}},
		{"by sudo", map[string]string{"id": "echo 1000", "apt-get": apt, "sudo": `echo "sudo $*" >&2; exec "$@"`}, 0,
			[]string{"sudo apt-get update", "sudo env", "apt-get install", " absent other"}, nil},
		{"by nobody", map[string]string{"id": "echo 1000", "apt-get": apt}, 1, []string{"apt-get install -y absent other"}, []string{"update"}},
		{"another system", map[string]string{"id": "echo 0"}, 1, []string{"install absent other with the package manager"}, []string{"command not found"}},
		{"a command of its own", map[string]string{"absent": "", "other": ""}, 0, nil, []string{"installing", "present"}},
		{"a list that is old", map[string]string{"id": "echo 0", "apt-get": `[ "$1" != update ] || exit 100` + "\n" + apt}, 0, []string{"apt-get install"}, nil},
		{"a package that there is not", map[string]string{"id": "echo 0", "apt-get": `[ "$1" = update ] || exit 100`}, 100, nil, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := only(t, "bash", "grep", "env", "sed")
			program(t, path, "dpkg-query", `case "$*" in *present) echo "install ok installed" ;; *) exit 1 ;; esac`)
			for name, body := range tt.programs {
				program(t, path, name, body)
			}
			out, code := script(path, "scripts/packages.sh", "absent", "present", "other")
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			for _, want := range tt.says {
				if !strings.Contains(out, want) {
					t.Errorf("want %q in %s", want, out)
				}
			}
			for _, unwanted := range tt.silent {
				if strings.Contains(out, unwanted) {
					t.Errorf("unwanted %q in %s", unwanted, out)
				}
			}
		})
	}
}
