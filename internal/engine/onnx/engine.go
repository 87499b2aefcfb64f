// Package onnx runs a language model with ONNX Runtime inside this process.
//
// One goroutine owns the session. It keeps a fixed number of slots, each a row
// of shared KV buffers, prefills prompts in chunks and decodes all running
// slots in one batch, so that a request joins and leaves a running batch.
package onnx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"infer/internal/engine"
	"infer/internal/engine/onnx/grammar"
	"infer/internal/engine/onnx/ort"
	"infer/internal/engine/onnx/tokenizer"
	"infer/internal/openai"
)

// Engine is an engine.Engine on ONNX Runtime.
type Engine struct {
	engine.State
	cfg  Config
	log  *slog.Logger
	mux  *http.ServeMux
	live atomic.Pointer[live] // set while ready

	inUse   sync.RWMutex  // read-locked by every request, locked to fall asleep and to be awake again
	retired bool          // taken away to sleep, guarded by inUse
	alarm   chan struct{} // holds a mark when a request waits for a sleeping engine

	embed    atomic.Pointer[embedder] // set while an encoder is loaded, or sleeps
	chatOnly atomic.Bool              // --model chats, and no encoder is beside it
	born     time.Time
	used     atomic.Int64 // nanoseconds from born to the last end of a request to an encoder that is alone
}

// live is what requests need of a loaded model.
type live struct {
	model  engine.Model
	config *genaiConfig
	tok    *tokenizer.Tokenizer
	chat   *chatTemplate
	marks  markers
	words  func() *grammar.Vocabulary // built when first needed
	rules  *grammars
	sched  *scheduler

	fingerprint string // see response
}

// New checks cfg and returns an engine that has not started. Errors are faults
// of the configuration.
func New(cfg Config, log *slog.Logger) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, log: log, mux: http.NewServeMux(), alarm: make(chan struct{}, 1), born: time.Now()}
	e.mux.HandleFunc("POST /v1/chat/completions", e.chatCompletions)
	e.mux.HandleFunc("POST /v1/completions", e.completions)
	e.mux.HandleFunc("POST /tokenize", e.tokenize)
	e.mux.HandleFunc("POST /detokenize", e.detokenize)
	e.publish(engine.Status{Phase: engine.Starting, Progress: -1})
	return e, nil
}

// ServeHTTP implements engine.Engine. A request wakes an engine that sleeps.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e.encode(w, r) {
		return
	}
	release, err := e.acquire(r.Context())
	if err != nil {
		if r.Context().Err() == nil { // otherwise the server answers
			openai.WriteError(w, wireError(err))
		}
		return
	}
	defer release()
	e.mux.ServeHTTP(w, r)
}

// Run implements engine.Engine: it loads the model, publishes Ready and
// schedules until ctx ends.
func (e *Engine) Run(ctx context.Context) error {
	err := e.serve(ctx)
	e.live.Store(nil)
	if err == nil || ctx.Err() != nil {
		e.publish(engine.Status{Phase: engine.Stopped, Progress: -1})
		return nil
	}
	f, ok := errors.AsType[*engine.Failure](err)
	if !ok {
		f = &engine.Failure{Cause: engine.CauseUnknown, Message: err.Error(), Err: err}
	}
	e.publish(engine.Status{Phase: engine.Failed, Progress: -1, Failure: f})
	return f
}

func (e *Engine) serve(ctx context.Context) error {
	began := time.Now()
	if _, err := os.Stat(e.cfg.Model); err != nil {
		return notFound(e.cfg.Model, err)
	}
	lib, err := openLibrary(e.cfg, e.log)
	if err != nil {
		return err
	}
	defer lib.Close()
	dev, err := chooseDevice(e.cfg, lib, e.log)
	if err != nil {
		return err
	}
	return e.withEncoder(ctx, lib, dev, func(ctx context.Context) error { return e.serveModel(ctx, lib, dev, began) })
}

// serveModel serves the model that chats.
func (e *Engine) serveModel(ctx context.Context, lib *ort.Library, dev device, began time.Time) error {
	dir, err := e.folder(ctx, dev)
	if err != nil {
		return err
	}
	e.publish(engine.Status{Phase: engine.Loading, Progress: -1, Detail: dir})
	for {
		err := e.awake(ctx, lib, dir, dev, began)
		if !errors.Is(err, errIdle) || ctx.Err() != nil {
			return err
		}
		began = time.Now()
	}
}

// awake loads the model, serves it, and sleeps when nothing is asked; then it
// returns errIdle.
func (e *Engine) awake(ctx context.Context, lib *ort.Library, dir string, dev device, began time.Time) error {
	m, l, err := e.load(lib, dir, dev)
	if err != nil {
		return err
	}
	slots := m.slots
	err = e.schedule(ctx, lib, m, l, began)
	m.close()
	if errors.Is(err, errIdle) {
		e.sleep(ctx, engine.Status{Slots: slots, Yields: true, Models: e.models(l.model)})
	}
	return err
}

// schedule warms the model up, publishes it and runs its scheduler.
func (e *Engine) schedule(ctx context.Context, lib *ort.Library, m *model, l *live, began time.Time) error {
	if e.Status().Phase != engine.Asleep { // a sleeping engine's requests wait inside
		e.publish(engine.Status{Phase: engine.Warming, Progress: -1})
	}
	warm, err := l.sched.warm(ctx, l.warmToken())
	if err != nil {
		return warmFailure(err)
	}
	e.log.Info("model ready", "model", l.model.ID, "onnx_runtime", lib.Version(), "device", m.device(),
		"slots", m.slots, "context_tokens", m.context, "kv_cache_bytes", m.kvBytes(), "huge_page_bytes", m.sess.HugePageBytes(),
		"load_seconds", time.Since(began).Seconds(), "warm_seconds", warm.Seconds())
	e.present(func() {
		e.live.Store(l)
		e.publish(engine.Status{Phase: engine.Ready, Progress: 1, Slots: m.slots, Yields: true, Models: e.models(l.model)})
	})
	return l.sched.loop(ctx)
}

// load reads tokenizer and graph side by side.
func (e *Engine) load(lib *ort.Library, dir string, dev device) (*model, *live, error) {
	gc, err := readFolder(dir)
	if err != nil {
		return nil, nil, err
	}
	l := &live{config: gc, rules: newGrammars()}
	l.words = sync.OnceValue(l.vocabulary)
	var m *model
	var g errgroup.Group
	g.Go(func() (err error) {
		if l.tok, err = tokenizer.Load(dir); err != nil {
			return &engine.Failure{Cause: engine.CauseModelUnsupported, Message: err.Error(), Err: err,
				Remedy: "choose a model with a byte-level BPE tokenizer.json"}
		}
		if l.chat, err = loadChatTemplate(dir, l.tok); err != nil {
			return err
		}
		l.marks = l.chat.markers(l.tok)
		return nil
	})
	g.Go(func() (err error) {
		m, err = e.openModel(lib, dir, gc, dev)
		return err
	})
	if err := g.Wait(); err != nil {
		if m != nil {
			m.close()
		}
		return nil, nil, err
	}
	l.model = engine.Model{ID: e.names()[0], ContextTokens: m.context, Created: modified(dir)}
	l.fingerprint = fmt.Sprintf("%s_ort%s_%s", filepath.Base(dir), lib.Version(), m.device())
	l.sched = newScheduler(m, m.slots, m.context, l.tok.VocabSize(), e.log)
	l.sched.sleepAfter, l.sched.retire = e.cfg.SleepAfter, e.retire
	return m, l, nil
}

// vocabulary is the model's tokens for grammars: control tokens have no text
// there but for the markers.
func (l *live) vocabulary() *grammar.Vocabulary {
	tokens := make([][]byte, l.tok.VocabSize())
	for i := range tokens {
		id := int32(i)
		if text, ok := l.marks[id]; ok {
			tokens[i] = []byte(text)
		} else if !l.tok.IsSpecial(id) {
			tokens[i] = l.tok.TokenBytes(id)
		}
	}
	return grammar.NewVocabulary(tokens, l.config.Model.EOS)
}

// warmToken is any token the model knows: its BOS, or the first.
func (l *live) warmToken() int32 {
	if len(l.config.Model.BOS) > 0 {
		return l.config.Model.BOS[0]
	}
	return 0
}

func warmFailure(err error) *engine.Failure {
	return &engine.Failure{Cause: engine.CauseEngineFault, Err: err,
		Message: "first inference: " + err.Error(),
		Remedy:  "the graph and this ONNX Runtime or device do not fit; see the log, try --device cpu or convert the model again"}
}

func modified(path string) time.Time {
	if info, err := os.Stat(path); err == nil {
		return info.ModTime()
	}
	return time.Time{}
}

// publish sets the status; models are known by name from the beginning.
func (e *Engine) publish(st engine.Status) {
	if st.Models == nil {
		st.Models = e.models(engine.Model{})
	}
	st.Beside = 1 // without an encoder such requests are refused at once
	if m := e.embed.Load(); m != nil && m.Encoder != nil {
		st.Beside = m.Capacity()
	}
	e.Set(st)
}

// models is one entry a name, with what is known of the model.
func (e *Engine) models(m engine.Model) []engine.Model {
	var list []engine.Model
	for _, name := range e.names() {
		m.ID = name
		list = append(list, m)
	}
	return append(list, e.embeddingModels()...)
}

func (e *Engine) names() []string {
	if len(e.cfg.Names) > 0 {
		return e.cfg.Names
	}
	return []string{strings.TrimSuffix(filepath.Base(e.cfg.Model), ".gguf")}
}
