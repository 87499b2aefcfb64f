package vllm

import (
	"cmp"
	"strings"
	"sync"
	"time"

	"infer/internal/engine"
)

// stem is a piece of a log line that tells how far a start is. vLLM's wording
// changes between releases, so stems are short, and a line without one changes
// nothing. These were seen in the logs of 0.27 to 0.32.
type stem struct {
	text  string
	phase engine.Phase
	says  string // instead of the line, which may hold settings
}

var stems = []stem{
	{"vLLM server version", engine.Starting, "reading the configuration"},
	{"non-default args", engine.Starting, "reading the configuration"},
	{"Resolved architecture", engine.Starting, ""},
	{"Initializing a V1 LLM engine", engine.Starting, "starting the engine process"},
	{"Downloading ", engine.Pulling, ""},
	{"Fetching ", engine.Pulling, ""},
	{"Time spent downloading weights", engine.Pulling, ""},
	{"Starting to load model", engine.Loading, ""},
	{"Prefetching checkpoint files", engine.Loading, ""},
	{"checkpoint shards", engine.Loading, ""},
	{"Loading weights took", engine.Loading, ""},
	{"Model loading took", engine.Loading, ""},
	{"Dynamo bytecode transform", engine.Compiling, ""},
	{"torch.compile", engine.Compiling, ""},
	{"Directly load the compiled graph", engine.Compiling, ""},
	{"Compiling a graph", engine.Compiling, ""},
	{"Initial profiling/warmup", engine.Compiling, ""},
	{"Available KV cache memory", engine.Compiling, ""},
	{"KV cache size", engine.Compiling, ""},
	{"Capturing CUDA graph", engine.Compiling, ""},
	{"Graph capturing finished", engine.Compiling, ""},
	{"init engine (", engine.Compiling, ""},
	{"Supported tasks:", engine.Warming, ""},
	{"Starting vLLM server on", engine.Warming, ""},
	{"Application startup complete", engine.Warming, ""},
}

// rank orders the phases. A download may come after the loading began.
func rank(p engine.Phase) int {
	switch p {
	case engine.Pulling, engine.Loading:
		return 1
	case engine.Compiling:
		return 2
	case engine.Warming:
		return 3
	}
	return 0
}

// tracker follows a start by its log lines. One goroutine feeds it, another
// reads it.
type tracker struct {
	changed chan struct{} // holds a mark when there is something new

	mu       sync.Mutex
	phase    engine.Phase
	progress float64
	detail   string
	spoke    time.Time // when the last line came
}

func newTracker() *tracker {
	return &tracker{changed: make(chan struct{}, 1), phase: engine.Starting, progress: -1, spoke: time.Now()}
}

// line looks for a stem.
func (t *tracker) line(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.spoke = time.Now()
	if strings.Contains(line, "disabling torch.compile") { // a setting, no step
		return
	}
	for _, s := range stems {
		if !strings.Contains(line, s.text) || rank(s.phase) < rank(t.phase) {
			continue
		}
		t.phase, t.detail, t.progress = s.phase, cmp.Or(s.says, oneLine(plain(line))), percent(line)
		if len(t.detail) > 200 {
			t.detail = strings.ToValidUTF8(t.detail[:200], "") + "…"
		}
		select {
		case t.changed <- struct{}{}:
		default:
		}
		return
	}
}

// status is what the lines so far say.
func (t *tracker) status() engine.Status {
	t.mu.Lock()
	defer t.mu.Unlock()
	return engine.Status{Phase: t.phase, Progress: t.progress, Detail: t.detail}
}

// silence is how long no line has come.
func (t *tracker) silence() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return time.Since(t.spoke)
}

// percent reads the number before the first percent sign as a share, and -1
// when there is none.
func percent(line string) float64 {
	end := strings.IndexByte(line, '%')
	if end < 0 {
		return -1
	}
	begin := end
	for begin > 0 && line[begin-1] >= '0' && line[begin-1] <= '9' {
		begin--
	}
	n := number([]byte(line[begin:end]))
	if begin == end || n > 100 {
		return -1
	}
	return float64(n) / 100
}
