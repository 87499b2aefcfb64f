package main

import (
	"encoding/json/v2"
	"fmt"
	"runtime"
	"runtime/debug"
)

// versionCmd prints what this binary was built from.
type versionCmd struct {
	JSON bool `name:"json" variable:"-" help:"Print one JSON object."`
}

// build is where a binary comes from.
type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
}

func (c versionCmd) run(p process) error {
	b := buildInfo()
	line := fmt.Sprintf("infer %s (commit %s, %s)\n", b.Version, b.Commit, b.Go)
	if c.JSON {
		text, err := json.Marshal(b)
		if err != nil {
			return fmt.Errorf("marshal version: %w", err)
		}
		line = string(text) + "\n"
	}
	if _, err := fmt.Fprint(p.stdout, line); err != nil {
		return fmt.Errorf("print version: %w", err)
	}
	return nil
}

// buildInfo reads what the Go tool stamped into the binary.
func buildInfo() build {
	b := build{Version: "unknown", Commit: "unknown", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	b.Version = info.Main.Version
	dirty := ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Commit = s.Value
		case s.Key == "vcs.modified" && s.Value == "true":
			dirty = " with changes"
		}
	}
	b.Commit += dirty
	return b
}
