package vllm

import (
	"context"
	"log/slog"
	"strings"
	"sync"
)

// journalLines is how many lines of a child are kept for its post-mortem. A
// Python traceback with vLLM's prefix takes about a hundred.
const journalLines = 400

// journal keeps the last lines of a child, and logs them.
type journal struct {
	log     *slog.Logger
	secrets []string // never logged or kept

	mu    sync.Mutex
	ring  [journalLines]string
	count int
}

// line takes one line of the child.
func (j *journal) line(line string) {
	for _, secret := range j.secrets {
		line = strings.ReplaceAll(line, secret, "***")
	}
	j.mu.Lock()
	j.ring[j.count%journalLines] = line
	j.count++
	j.mu.Unlock()
	level := slog.LevelDebug // progress bars, access log
	switch levelOf(line) {
	case "INFO":
		level = slog.LevelInfo
	case "WARNING":
		level = slog.LevelWarn
	case "ERROR", "CRITICAL":
		level = slog.LevelError
	}
	if strings.Contains(line, "Route: ") {
		level = slog.LevelDebug
	}
	j.log.Log(context.Background(), level, "vllm", "line", line)
}

// lines returns what is kept, oldest first.
func (j *journal) lines() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var kept []string
	for i := max(0, j.count-journalLines); i < j.count; i++ {
		kept = append(kept, j.ring[i%journalLines])
	}
	return kept
}
