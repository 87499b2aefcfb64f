package vllm

import (
	"bytes"
	"io"
	"strings"
)

// maxLineBytes bounds one line of a child's output; the rest of a longer one
// is dropped.
const maxLineBytes = 4 << 10

// readLines calls line for every line that r brings, until r ends. Progress
// bars end their lines with a CR alone, so a CR ends a line too; empty lines
// are left out.
func readLines(r io.Reader, line func(string)) {
	var kept []byte
	emit := func() {
		if text := strings.TrimSpace(strings.ToValidUTF8(string(kept), "�")); text != "" {
			line(text)
		}
		kept = kept[:0]
	}
	buf := make([]byte, 4<<10)
	for {
		n, err := r.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			end := bytes.IndexAny(rest, "\r\n")
			part := rest
			if end >= 0 {
				part = rest[:end]
			}
			kept = append(kept, part[:min(len(part), maxLineBytes-len(kept))]...)
			if end < 0 {
				break
			}
			emit()
			rest = rest[end+1:]
		}
		if err != nil {
			emit()
			return
		}
	}
}

// plain is a line without what vLLM's logger puts in front of it:
//
//	(EngineCore pid=19340) INFO 11-24 17:20:46 [kv_cache_utils.py:2327] CPU KV cache size: …
func plain(line string) string {
	if strings.HasPrefix(line, "(") {
		if _, rest, ok := strings.Cut(line, ") "); ok {
			line = rest
		}
	}
	for _, level := range levels {
		if rest, ok := strings.CutPrefix(line, level+" "); ok {
			if _, rest, ok = strings.Cut(rest, "] "); ok {
				return strings.TrimSpace(rest)
			}
		}
	}
	return line
}

// levels are those of Python's logging.
var levels = []string{"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}

// levelOf is the level that a line says of itself, or empty.
func levelOf(line string) string {
	if strings.HasPrefix(line, "(") {
		if _, rest, ok := strings.Cut(line, ") "); ok {
			line = rest
		}
	}
	for _, level := range levels {
		if strings.HasPrefix(line, level+" ") {
			return level
		}
	}
	return ""
}
