package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v3"
)

// cli is the command line. Each command is one file of this package.
type cli struct {
	Serve    serveCmd    `cmd:"" default:"withargs" help:"Run the engine and the server (the default)."`
	Batch    batchCmd    `cmd:"" help:"Run a file of requests against the engine or a running server, and exit."`
	Chat     chatCmd     `cmd:"" help:"Talk to a running server from the terminal."`
	Simulate simulateCmd `cmd:"" help:"Replay traffic through scaling rules."`
	Version  versionCmd  `cmd:"" help:"Print version, commit and Go version."`
	Guard    guardCmd    `cmd:"" hidden:"" help:"End vLLM's processes when serve was killed; serve runs it."`
}

// errHelp says that help was asked for and printed.
var errHelp = errors.New("help printed")

// parse fills a cli from flags, environment and file and returns the command's
// name. It reports every fault it can find at once.
func parse(p process) (cli, string, error) {
	var c cli
	src := &sources{getenv: p.getenv}
	helped := false
	parser, err := kong.New(&c, kong.Name("infer"),
		kong.Description("A GPU inference runtime: one model, one port, the OpenAI API."),
		kong.Writers(p.stdout, p.stderr), kong.Resolvers(src), kong.ValueFormatter(describe),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Exit(func(int) { helped = true }))
	if err != nil {
		panic(err) // the tags above are wrong
	}
	disownEnvironment(parser.Model.Node)
	p.args, c.Serve.VLLM.Args = splitArgs(p.args)
	c.Batch.Server.VLLM.Args = c.Serve.VLLM.Args
	ctx, err := parser.Parse(p.args)
	if helped {
		return c, "", errHelp
	}
	var faults []error
	if err != nil {
		// kong stops at the first fault: leave the faulty flags out, to see the
		// faults of the rest.
		var sound []string
		if sound, faults = argFaults(parser, p.args); len(faults) == 0 {
			faults = []error{err}
		}
		ctx, err = parser.Parse(sound)
	}
	if err != nil {
		c.Serve.TerminationLog = cmp.Or(c.Serve.TerminationLog, defaultTerminationLog)
		return c, "", usageError{errors.Join(faults...)}
	}
	command := strings.Fields(ctx.Command())[0]
	faults = append(faults, src.faults...)
	switch command {
	case "serve":
		faults = append(faults, c.Serve.faults(p.getenv)...)
	case "batch":
		c.Serve.TerminationLog = c.Batch.Server.TerminationLog
		faults = append(faults, c.Batch.faults(p.getenv)...)
	}
	if len(faults) > 0 {
		return c, command, usageError{errors.Join(faults...)}
	}
	return c, command, nil
}

// disownEnvironment keeps kong from reading the process's own environment:
// sources does that, through getenv.
func disownEnvironment(node *kong.Node) {
	for _, f := range node.Flags {
		f.Envs, f.Tag.Envs = nil, nil
	}
	for _, child := range node.Children {
		disownEnvironment(child)
	}
}

// sources resolves flags that the command line left open: environment first,
// then the file. A value that cannot be parsed becomes a fault and is left out,
// so that the others are still looked at.
type sources struct {
	getenv func(string) string
	file   map[string]any // nil until read
	faults []error
}

// Validate implements kong.Resolver.
func (*sources) Validate(*kong.Application) error { return nil }

// Resolve implements kong.Resolver.
func (s *sources) Resolve(ctx *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
	if name := envName(flag.Value); name != "" {
		if v := s.getenv(name); v != "" && s.fits(flag, name, v) {
			return v, nil
		}
	}
	if name := parent.Node().Name; (name != "serve" && name != "batch") || flag.Name == "config" {
		return nil, nil
	}
	if s.file == nil {
		s.file = map[string]any{}
		s.readFile(ctx, parent.Node().Flags)
	}
	if v, ok := s.file[flag.Name]; ok && s.fits(flag, "config: "+flag.Name, v) {
		return v, nil
	}
	return nil, nil
}

// fits parses v as flag would, and notes a fault when that is impossible.
func (s *sources) fits(flag *kong.Flag, source string, v any) bool {
	err := named(source, tryParse(flag, v))
	if err != nil {
		s.faults = append(s.faults, err)
	}
	return err == nil
}

func tryParse(flag *kong.Flag, v any) error {
	target := reflect.New(flag.Target.Type()).Elem()
	return flag.Mapper.Decode(&kong.DecodeContext{
		Value: flag.Value, Scan: kong.Scan().PushTyped(v, kong.FlagValueToken),
	}, target)
}

// readFile reads the YAML file that --config or INFER_CONFIG names.
func (s *sources) readFile(ctx *kong.Context, flags []*kong.Flag) {
	known := map[string]bool{}
	path := ""
	for _, f := range flags {
		known[f.Name] = f.Name != "config"
		if f.Name == "config" {
			path, _ = ctx.FlagValue(f).(string)
		}
	}
	if path == "" {
		path = s.getenv("INFER_CONFIG")
	}
	if path == "" {
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		s.faults = append(s.faults, fmt.Errorf("config: read %s: %w", path, err))
		return
	}
	values, faults := parseYAML(text, known)
	s.file = values
	for _, err := range faults {
		s.faults = append(s.faults, fmt.Errorf("config: %s: %w", path, err))
	}
}

// parseYAML returns the file's values as text, exactly as a flag would be
// given, so that 2GiB and 2147483648 are read by the same code.
func parseYAML(text []byte, known map[string]bool) (map[string]any, []error) {
	values := map[string]any{}
	var nodes map[string]yaml.Node
	if err := yaml.Unmarshal(text, &nodes); err != nil {
		return values, []error{err}
	}
	var faults []error
	for key, n := range nodes {
		if !known[key] {
			faults = append(faults, fmt.Errorf("line %d: unknown key %q; infer serve --help lists the names", n.Line, key))
			continue
		}
		v, err := yamlValue(&n)
		if err != nil {
			faults = append(faults, fmt.Errorf("line %d: %s: %w", n.Line, key, err))
			continue
		}
		if v != nil {
			values[key] = v
		}
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return values, faults
}

func yamlValue(n *yaml.Node) (any, error) {
	switch {
	case n.Kind == yaml.AliasNode:
		return yamlValue(n.Alias)
	case n.Kind == yaml.ScalarNode && n.Tag == "!!null":
		return nil, nil
	case n.Kind == yaml.ScalarNode:
		return n.Value, nil
	case n.Kind == yaml.SequenceNode:
		list := []any{}
		for _, item := range n.Content {
			if item.Kind != yaml.ScalarNode {
				return nil, errors.New("a list may hold plain values only")
			}
			list = append(list, item.Value)
		}
		return list, nil
	default:
		return nil, errors.New("must be a plain value or a list, not a mapping")
	}
}

// envName is the variable that stands in for a flag, or empty. A tag overrides
// it outside serve, because INFER_MODEL is a path to serve and a name to chat.
func envName(v *kong.Value) string {
	switch name := v.Tag.Get("variable"); {
	case v.Flag == nil || v.Flag.Name == "help" || name == "-":
		return ""
	case name != "":
		return name
	default:
		return "INFER_" + strings.ToUpper(strings.ReplaceAll(v.Flag.Name, "-", "_"))
	}
}

// describe adds the variable to a flag's help.
func describe(v *kong.Value) string {
	if name := envName(v); name != "" {
		return strings.TrimSuffix(v.Help, ".") + " ($" + name + ")."
	}
	return v.Help
}

// argFaults finds every faulty flag of a command line that kong has refused,
// and returns the arguments without them.
func argFaults(parser *kong.Kong, args []string) (sound []string, faults []error) {
	node := parser.Model.Node
	at := slices.IndexFunc(node.Children, func(child *kong.Node) bool { return len(args) > 0 && args[0] == child.Name })
	if at >= 0 || serves(args) {
		node = node.Children[max(at, 0)] // the first is the default
	}
	flags := map[string]*kong.Flag{}
	for _, group := range node.AllFlags(false) {
		for _, f := range group {
			flags["--"+f.Name] = f
		}
	}
	for rest := args; len(rest) > 0; {
		taken, err := checkArg(flags, rest)
		if err == nil {
			sound = append(sound, rest[:taken]...)
		} else {
			faults = append(faults, err)
		}
		rest = rest[taken:]
	}
	return sound, faults
}

// checkArg looks at the first argument and says how many belong to it.
func checkArg(flags map[string]*kong.Flag, args []string) (int, error) {
	name, value, joined := strings.Cut(args[0], "=")
	if !strings.HasPrefix(name, "--") || name == "--" {
		return 1, nil
	}
	flag, ok := flags[name]
	switch {
	case !ok:
		return 1, fmt.Errorf("unknown flag %s; --help lists the names", name)
	case joined:
		return 1, named(name, tryParse(flag, value))
	case flag.IsBool():
		return 1, nil
	case len(args) == 1:
		return 1, fmt.Errorf("%s: needs a value", name)
	default:
		return 2, named(name, tryParse(flag, args[1]))
	}
}

// named says which flag err is about.
func named(name string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", name, err)
}

// size is a number of bytes, written as 2147483648, 2GiB or 1.5GB.
type size int64

var sizeUnits = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *size) UnmarshalText(text []byte) error {
	for _, u := range sizeUnits {
		number, ok := strings.CutSuffix(string(text), u.suffix)
		if !ok {
			continue
		}
		v, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if bytes := v * u.bytes; err == nil && bytes >= 0 && bytes < 1<<62 { // false for NaN
			*s = size(bytes)
			return nil
		}
		break
	}
	return fmt.Errorf("%q is not a size; write a number of bytes or one such as 512MiB or 2GiB", text)
}
