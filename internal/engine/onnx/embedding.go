package onnx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"infer/internal/engine"
	"infer/internal/engine/onnx/encoder"
	"infer/internal/engine/onnx/ort"
	"infer/internal/openai"
)

// embedder is a loaded encoder, alone or beside the model that chats. It does
// not sleep with that one: it is small, and has no cache.
type embedder struct {
	*encoder.Encoder
	names []string
	alone bool // --model itself is the encoder
}

// encoderRoute answers one request of an encoder's route; a nil answer without
// a fault is for a client that left.
type encoderRoute func(m *embedder, f fields, model string, r *http.Request) (any, *openai.Error)

// encoderRoutes never wake the model that chats or wait for it.
var encoderRoutes = map[string]encoderRoute{
	"/v1/embeddings": (*embedder).embeddings,
	"/v1/rerank":     (*embedder).rerank,
	"/v1/score":      (*embedder).scores,
	"/classify":      (*embedder).classify,
}

// encode answers the routes of an encoder, and those of chat when there is no
// model that chats. It returns false for a request that is not its own.
func (e *Engine) encode(w http.ResponseWriter, r *http.Request) bool {
	m := e.embed.Load()
	route := encoderRoutes[r.URL.Path]
	switch {
	case r.Method != http.MethodPost || route == nil && (m == nil || !m.alone):
		return false
	case route == nil:
		openai.WriteError(w, encodesOnly(m.names[0]))
	case m == nil && e.cfg.EmbeddingModel == "" && e.live.Load() != nil:
		openai.WriteError(w, wrongModel(e.names()[0], "writes text and is no encoder", "/v1/chat/completions; an encoder beside it needs --embedding-model"))
	case m == nil:
		openai.WriteError(w, wireError(errStopped))
	default:
		body, fault := m.answer(r, route)
		if fault != nil {
			openai.WriteError(w, fault)
		} else if body != nil { // else the client left
			writeJSON(w, body)
		}
	}
	return true
}

func (m *embedder) answer(r *http.Request, route encoderRoute) (any, *openai.Error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, openai.Invalid("", openai.CodeInvalidJSON, "the body cannot be read: %v", err)
	}
	f, fault := parseFields(body)
	if fault != nil {
		return nil, fault
	}
	model, fault := take(f, "model", m.names[0], "a string")
	if fault != nil {
		return nil, fault
	}
	if !slices.Contains(m.names, model) {
		return nil, wrongModel(model, "is not the encoder", "/v1/chat/completions; here name "+strings.Join(m.names, " or "))
	}
	return route(m, f, model, r)
}

// wrongModel refuses a model on a route of another kind.
func wrongModel(name, what, use string) *openai.Error {
	return &openai.Error{Status: http.StatusNotFound, Type: openai.TypeNotFound, Code: openai.CodeModelNotFound, Param: "model",
		Message: fmt.Sprintf("the model %q %s; it answers %s", name, what, use)}
}

// writes refuses the encoder's names on the routes of the model that chats.
func (e *Engine) writes(model string) *openai.Error {
	if m := e.embed.Load(); m != nil && slices.Contains(m.names, model) {
		return encodesOnly(model)
	}
	return nil
}

func encodesOnly(name string) *openai.Error {
	return wrongModel(name, "is an encoder and writes no text", "/v1/embeddings, /v1/rerank, /v1/score and /classify")
}

// withEncoder runs next beside the encoder that the configuration names, or
// instead of next, when --model is itself one.
func (e *Engine) withEncoder(ctx context.Context, lib *ort.Library, dev device, next func(context.Context) error) error {
	alone := encoder.IsModel(e.cfg.Model)
	dir, names := e.cfg.EmbeddingModel, e.embeddingNames()
	switch {
	case alone && dir != "":
		return &engine.Failure{Cause: engine.CauseModelUnsupported, Message: "--model and --embedding-model both name an encoder",
			Remedy: "leave --embedding-model out, or name a model that chats with --model"}
	case alone:
		dir, names = e.cfg.Model, e.names()
	case dir == "":
		return next(ctx)
	}
	began := time.Now()
	e.publish(engine.Status{Phase: engine.Loading, Progress: -1, Detail: dir})
	enc, err := e.openEncoder(lib, dir, dev)
	if err != nil {
		return encoderFailure(dir, err)
	}
	e.embed.Store(&embedder{enc, names, alone})
	defer e.embed.Store(nil)
	e.log.Info("encoder ready", "model", names[0], "onnx_runtime", lib.Version(), "dimensions", enc.Dimensions(),
		"classes", enc.Labels(), "max_tokens", enc.MaxTokens(), "load_seconds", time.Since(began).Seconds())
	if alone {
		next = func(ctx context.Context) error {
			e.publish(engine.Status{Phase: engine.Ready, Progress: 1, Slots: 1,
				Models: e.models(engine.Model{ContextTokens: enc.MaxTokens(), Created: modified(dir)})})
			<-ctx.Done()
			return nil
		}
	}
	return runBeside(ctx, enc, next)
}

// runBeside runs both until one ends.
func runBeside(ctx context.Context, enc *encoder.Encoder, next func(context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	broke := make(chan error, 1)
	go func() {
		defer stop()
		broke <- enc.Run(ctx)
	}()
	err := next(ctx)
	stop()
	if fault := <-broke; fault != nil {
		return &engine.Failure{Cause: engine.CauseEngineFault, Retryable: true, Message: fault.Error(), Err: fault,
			Remedy: "see the log for ONNX Runtime's own message; restart the container"}
	}
	return err
}

// openEncoder loads the encoder on the device. auto takes
// the CPU when the graph is not one for CUDA, as int8 graphs are not.
func (e *Engine) openEncoder(lib *ort.Library, dir string, dev device) (*encoder.Encoder, error) {
	cfg := encoder.Config{Dir: dir, Threads: e.cfg.Threads, Spin: e.cfg.Spin, CUDA: dev.cuda, Device: dev.index}
	enc, err := encoder.Open(lib, cfg, e.log)
	if errors.Is(err, ort.ErrNoCUDA) && e.cfg.Device == "auto" {
		e.log.Warn("the encoder runs on the CPU", "err", err)
		cfg.CUDA = false
		return encoder.Open(lib, cfg, e.log)
	}
	return enc, err
}

// encoderFailure types the error of loading an encoder.
func encoderFailure(dir string, err error) *engine.Failure {
	f := &engine.Failure{Err: err, Message: fmt.Sprintf("load %s: %v", dir, err)}
	switch _, missing := os.Stat(dir); {
	case missing != nil:
		f.Cause, f.Remedy = engine.CauseModelNotFound, "check --embedding-model and the volume it lies on"
	case errors.Is(err, ort.ErrNoCUDA):
		return sessionFailure(dir, err)
	case errors.Is(err, encoder.ErrUnsupported):
		f.Cause, f.Remedy = engine.CauseModelUnsupported, "choose an encoder of the BERT family, exported to ONNX with its tokenizer and configuration"
	case errors.Is(err, encoder.ErrInvalid):
		f.Cause, f.Remedy = engine.CauseModelInvalid, "fetch or export the model again, with the files beside its graph"
	default:
		f.Cause, f.Remedy = engine.CauseUnknown, "see the cause in the message"
	}
	return f
}

// embeddingNames are the names of the encoder beside the model that chats.
func (e *Engine) embeddingNames() []string {
	switch {
	case e.cfg.EmbeddingModel == "":
		return nil
	case len(e.cfg.EmbeddingNames) > 0:
		return e.cfg.EmbeddingNames
	}
	return []string{filepath.Base(e.cfg.EmbeddingModel)}
}

// embeddingModels is one entry a name of the encoder beside.
func (e *Engine) embeddingModels() []engine.Model {
	m := engine.Model{}
	if enc := e.embed.Load(); enc != nil {
		m.ContextTokens, m.Created = enc.MaxTokens(), modified(e.cfg.EmbeddingModel)
	}
	var list []engine.Model
	for _, name := range e.embeddingNames() {
		m.ID = name
		list = append(list, m)
	}
	return list
}

// validateEmbedding reports the faults of the settings of an encoder.
func (c Config) validateEmbedding() error {
	if c.EmbeddingModel == "" {
		if len(c.EmbeddingNames) > 0 {
			return errors.New("embedding-model-name: given without --embedding-model; name the encoder's folder too")
		}
		return nil
	}
	e := Engine{cfg: c}
	for _, name := range e.embeddingNames() {
		if slices.Contains(e.names(), name) {
			return fmt.Errorf("embedding-model-name: %q is also the name of --model; choose another", name)
		}
	}
	return nil
}
