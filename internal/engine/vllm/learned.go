package vllm

import (
	"encoding/json/v2"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"infer/internal/engine"
)

// learned remembers how long each phase of a start takes, in a small file, so
// that a wait can be told before it is over. One goroutine uses it.
type learned struct {
	path string // empty keeps it in memory only
	key  string // of this model with these flags
	file learnedFile
}

// learnedFile is the file: seconds of each phase, by model and flags.
type learnedFile map[string]map[engine.Phase]float64

const (
	maxLearned      = 32       // models; others are forgotten
	maxLearnedBytes = 64 << 10 // what is larger is not ours
)

// startPhases are what a start goes through.
var startPhases = []engine.Phase{engine.Starting, engine.Pulling, engine.Loading, engine.Compiling, engine.Warming}

// newLearned reads what earlier starts left in folder. A file that cannot be
// read is as good as none; the error is for the log.
func newLearned(folder, key string) (*learned, error) {
	l := &learned{key: key, file: learnedFile{}}
	if folder == "" {
		return l, nil
	}
	l.path = filepath.Join(folder, "vllm-starts.json")
	info, err := os.Stat(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err != nil || info.Size() > maxLearnedBytes {
		return l, fmt.Errorf("read learned start durations: %s is not usable: %w", l.path, err)
	}
	text, err := os.ReadFile(l.path)
	if err == nil {
		err = json.Unmarshal(text, &l.file)
	}
	if err != nil {
		l.file = learnedFile{}
		return l, fmt.Errorf("read learned start durations: %w", err)
	}
	return l, nil
}

// remaining is how long it takes from age within phase until Ready, and false
// when no start was seen to its end.
func (l *learned) remaining(phase engine.Phase, age time.Duration) (time.Duration, bool) {
	known := l.file[l.key]
	if len(known) == 0 {
		return 0, false
	}
	var left time.Duration
	for _, p := range startPhases {
		took := time.Duration(known[p] * float64(time.Second))
		switch {
		case p == phase:
			left = max(took-age, 0) // what was summed before has passed
		default:
			left += took
		}
	}
	return left, true
}

// record mixes a start's durations into those of earlier ones, the new one as
// heavy as all before, and writes the file by a rename.
func (l *learned) record(took map[engine.Phase]time.Duration) error {
	known := l.file[l.key]
	if known == nil {
		for key := range l.file {
			if len(l.file) < maxLearned {
				break
			}
			delete(l.file, key)
		}
		known = map[engine.Phase]float64{}
		l.file[l.key] = known
	}
	first := len(known) == 0
	for _, p := range startPhases {
		if s := took[p].Seconds(); first {
			known[p] = s
		} else {
			known[p] = (known[p] + s) / 2
		}
	}
	if l.path == "" {
		return nil
	}
	return l.write()
}

func (l *learned) write() error {
	text, err := json.Marshal(l.file, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("write learned start durations: %w", err)
	}
	folder := filepath.Dir(l.path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return fmt.Errorf("write learned start durations: %w", err)
	}
	f, err := os.CreateTemp(folder, ".vllm-starts-*")
	if err != nil {
		return fmt.Errorf("write learned start durations: %w", err)
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), l.path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // it is of no use
		return fmt.Errorf("write learned start durations: %w", err)
	}
	return nil
}
