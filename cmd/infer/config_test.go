package main

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
)

func TestPrecedence(t *testing.T) {
	file := writeFile(t, "infer.yaml", "model: from-file\nmax-queue: 1\nslots: 1\nhold: 1s\nkv-bytes: 3GiB\nserved-model-name: [a, b]\nspin: true\n")
	c, command, err := parse(in(map[string]string{
		"HOME": "/home/u", "INFER_CONFIG": file, "INFER_MAX_QUEUE": "2", "INFER_SLOTS": "2", "INFER_HOLD": "",
	}, "--slots", "3"))
	if err != nil {
		t.Fatal(err)
	}
	s := c.Serve
	for _, tt := range []struct {
		source    string
		got, want any
	}{
		{"the default command", command, "serve"},
		{"flag over environment and file", s.Slots, 3},
		{"environment over file", s.Server.MaxQueue, 2},
		{"file over default", s.Model, "from-file"},
		{"an empty variable is no variable", s.Server.Hold, time.Second},
		{"default", s.Server.Grace, 30 * time.Second},
		{"a size", s.KVBytes, size(3 << 30)},
		{"a list", strings.Join(s.Names, " "), "a b"},
		{"a truth", s.Spin, true},
		{"the cache", s.Cache, "/home/u/.cache/infer"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.source, tt.got, tt.want)
		}
	}
}

func TestConfigFlagOverEnvironment(t *testing.T) {
	file := writeFile(t, "infer.yaml", "model: from-flag\n")
	c, _, err := parse(in(map[string]string{"HOME": "/h", "INFER_CONFIG": "/nowhere"}, "serve", "--config", file))
	if err != nil || c.Serve.Model != "from-flag" {
		t.Errorf("got %q, %v; want from-flag", c.Serve.Model, err)
	}
}

func TestRepeatedNames(t *testing.T) {
	for _, p := range []process{
		in(map[string]string{"HOME": "/h"}, "--model=m", "--served-model-name=a", "--served-model-name=b"),
		in(map[string]string{"HOME": "/h", "INFER_SERVED_MODEL_NAME": "a,b"}, "--model=m"),
	} {
		c, _, err := parse(p)
		if got := strings.Join(c.Serve.Names, " "); got != "a b" || err != nil {
			t.Errorf("got %q, %v; want a b", got, err)
		}
	}
}

// One failed deploy should teach everything: faults of all four sources and of
// every package come together.
func TestAllFaultsAtOnce(t *testing.T) {
	file := writeFile(t, "infer.yaml", "threads: many\nmodle: x\ncontext: {a: 1}\n")
	_, _, err := parse(in(map[string]string{"INFER_HOLD": "3", "INFER_MAX_QUEUE": "-1"},
		"--config", file, "--bogus", "--slots=x", "--grace", "soon", "--engine=trt", "--device=tpu",
		"--log-format=xml", "--listen=80", "--kv-bytes=2XB"))
	if exitCode(err) != exitUsage {
		t.Fatalf("exit code %d for %v, want %d", exitCode(err), err, exitUsage)
	}
	contains(t, err.Error(),
		"unknown flag --bogus", "--slots: ", "--grace: ", "--kv-bytes: ", "INFER_HOLD: ",
		"config: threads: ", `line 2: unknown key "modle"`, "line 3: context: must be",
		"engine: ", "trt", "is not auto, onnx or vllm", "log-format: ", "listen: ", "cache: ", "device: ", "model: ", "max-queue: ")
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 15 {
		t.Errorf("%d faults, want 15:\n%v", len(lines), err)
	}
}

func TestConfigFileThatCannotBeRead(t *testing.T) {
	for path, want := range map[string]string{
		"/nowhere.yaml":                          "config: read /nowhere.yaml: no such file or directory",
		writeFile(t, "a.yaml", "a: 1\na: 2\n"):   "already defined",
		writeFile(t, "b.yaml", "- a list\n"):     "config: ",
		writeFile(t, "c.yaml", "slots: [[1]]\n"): "plain values only",
	} {
		_, _, err := parse(in(map[string]string{"HOME": "/h"}, "--model=m", "--config", path))
		if exitCode(err) != exitUsage {
			t.Errorf("%s: exit code %d, want %d", path, exitCode(err), exitUsage)
		} else {
			contains(t, err.Error(), want)
		}
	}
}

// A Kubernetes Service named infer puts INFER_PORT=tcp://… and others into
// every container of its namespace; they must not be taken for settings.
func TestServiceLinksAreNoSettings(t *testing.T) {
	_, _, err := parse(in(map[string]string{
		"HOME": "/h", "INFER_PORT": "tcp://10.0.0.1:80", "INFER_SERVICE_HOST": "10.0.0.1", "INFER_SERVICE_PORT": "80",
		"INFER_PORT_80_TCP": "tcp://10.0.0.1:80", "INFER_PORT_80_TCP_ADDR": "10.0.0.1",
	}, "--model=m"))
	if err != nil {
		t.Error(err)
	}
}

// A switch that is on by default is turned off by each source.
func TestSwitchOff(t *testing.T) {
	file := writeFile(t, "infer.yaml", "keep-responses: false\n")
	for _, tt := range []struct {
		env  map[string]string
		args []string
		want bool
	}{
		{nil, nil, true},
		{nil, []string{"--keep-responses=false"}, false},
		{map[string]string{"INFER_KEEP_RESPONSES": "false"}, nil, false},
		{map[string]string{"INFER_KEEP_RESPONSES": "false"}, []string{"--keep-responses=true"}, true},
		{nil, []string{"--config", file}, false},
	} {
		c, _, err := parse(in(tt.env, append([]string{"serve", "--model", "m", "--cache", "/tmp"}, tt.args...)...))
		if err != nil || c.Serve.Jobs.Keep != tt.want {
			t.Errorf("%v %q: %v (%v), want %v", tt.env, tt.args, c.Serve.Jobs.Keep, err, tt.want)
		}
	}
}

func TestSize(t *testing.T) {
	for text, want := range map[string]size{
		"0": 0, "2147483648": 2 << 30, "2GiB": 2 << 30, "1.5 KiB": 1536, "3MB": 3e6, "7B": 7, "1TiB": 1 << 40,
	} {
		var got size
		if err := got.UnmarshalText([]byte(text)); got != want || err != nil {
			t.Errorf("%q: got %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "2XB", "1e99", "NaN", "Inf", "2 G", "1,5GiB"} {
		var got size
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

// Whatever a file holds, reading it ends in values or in faults, never both
// for one key.
func FuzzParseYAML(f *testing.F) {
	for _, s := range []string{"slots: 2\n", "model: &a x\nlisten: *a\n", "a: 1\na: 2", "- 1", "slots: {a: b}", "slots: [1, [2]]", "\x00"} {
		f.Add([]byte(s))
	}
	known := map[string]bool{"slots": true, "model": true, "listen": true}
	f.Fuzz(func(t *testing.T, text []byte) {
		values, faults := parseYAML(text, known)
		for key, v := range values {
			if !known[key] {
				t.Errorf("unknown key %q was taken", key)
			}
			if _, ok := v.(string); !ok {
				if _, ok := v.([]any); !ok {
					t.Errorf("%s: %T is neither text nor a list", key, v)
				}
			}
		}
		if len(values)+len(faults) > len(text) {
			t.Errorf("%d values and %d faults from %d bytes", len(values), len(faults), len(text))
		}
	})
}

// The configuration's page lists every flag of serve with its default.
func TestReadmeListsEveryFlag(t *testing.T) {
	readme, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	parser, err := kong.New(&cli{})
	if err != nil {
		t.Fatal(err)
	}
	serve := parser.Model.Children[0]
	if serve.Name != "serve" || len(serve.Flags) < 10 {
		t.Fatalf("the first command is %s with %d flags", serve.Name, len(serve.Flags))
	}
	for _, f := range serve.Flags {
		row := "| `--" + f.Name + "` | "
		if f.HasDefault {
			row += "`" + f.Default + "` |"
		}
		contains(t, string(readme), row)
		if rest, found := strings.CutPrefix(f.Name, "service"); found || f.Name == "port" {
			t.Errorf("--%s: Kubernetes sets INFER_SERVICE_…%s and INFER_PORT for a Service named infer", f.Name, rest)
		}
	}
}

// Whatever the command line and the environment hold, the end is a command or
// faults that a person can repair.
func FuzzParse(f *testing.F) {
	f.Add("serve --model=x --slots 3", "INFER_HOLD", "3s")
	f.Add("chat --url=x -- --y", "INFER_URL", "http://x")
	f.Add("--slots", "INFER_SLOTS", "-1")
	f.Add("--served-model-name=a,b --spin=maybe -h", "INFER_SERVED_MODEL_NAME", "a,")
	f.Add("version --json=x y", "INFER_KV_BYTES", "1e400GiB")
	f.Fuzz(func(t *testing.T, args, name, value string) {
		if name == "INFER_CONFIG" || strings.Contains(args, "--config") {
			return // would read any file
		}
		_, command, err := parse(in(map[string]string{"HOME": "/h", name: value}, strings.Fields(args)...))
		switch {
		case errors.Is(err, errHelp):
		case err == nil && command != "serve" && command != "chat" && command != "version":
			t.Errorf("command %q", command)
		case err != nil && (exitCode(err) != exitUsage || err.Error() == ""):
			t.Errorf("exit code %d for %v", exitCode(err), err)
		}
	})
}
