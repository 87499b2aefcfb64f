package onnx

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json/v2"
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

// embedder is an encoder, alone or beside the model that chats. It does not
// sleep with that one, because it is small and has no cache; alone it does.
type embedder struct {
	*encoder.Encoder // nil while it sleeps
	names            []string
	alone            bool // --model itself is the encoder
}

// encoderRoute answers one request of an encoder's route; a nil answer without
// a fault is for a client that left.
type encoderRoute func(m *embedder, f fields, model string, r *http.Request) (any, *openai.Error)

// encoderRoutes never wake the model that chats or wait for it. The server has
// made these paths of their aliases.
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
	if m != nil && r.URL.Path == "/tokenize" && (m.alone || m.named(r)) {
		route = (*embedder).tokenize
	}
	switch {
	case r.Method != http.MethodPost || route == nil && (m == nil || !m.alone):
		return false
	case route == nil:
		openai.WriteError(w, encodesOnly(m.names[0]))
	case m == nil && e.chatOnly.Load():
		openai.WriteError(w, wrongModel(e.names()[0], "writes text and is no encoder", "/v1/chat/completions; an encoder beside it needs --embedding-model"))
	case m == nil:
		openai.WriteError(w, wireError(errStopped))
	default:
		body, fault := e.encoded(m, route, r)
		if fault != nil {
			openai.WriteError(w, fault)
		} else if body != nil { // else the client left
			writeJSON(w, body)
		}
	}
	return true
}

// encoded answers a request, and wakes an encoder that sleeps.
func (e *Engine) encoded(m *embedder, route encoderRoute, r *http.Request) (any, *openai.Error) {
	if m.alone {
		release, err := e.acquire(r.Context())
		switch {
		case err != nil && r.Context().Err() != nil:
			return nil, nil
		case err != nil:
			return nil, wireError(err)
		}
		defer func() {
			e.used.Store(int64(time.Since(e.born)))
			release()
		}()
		if m = e.embed.Load(); m == nil { // the engine ends, which waits for nobody
			return nil, wireError(errStopped)
		}
	}
	return m.answer(r, route)
}

// named says whether a body asks for the encoder, and leaves it to be read.
func (m *embedder) named(r *http.Request) bool {
	body, err := io.ReadAll(r.Body)
	r.Body = io.NopCloser(io.MultiReader(bytes.NewReader(body), failing{err}))
	var asked struct {
		Model string `json:"model"`
	}
	return err == nil && json.Unmarshal(body, &asked) == nil && slices.Contains(m.names, asked.Model)
}

// failing reads as a body that broke off with err; nil is its end.
type failing struct{ err error }

// Read implements io.Reader.
func (f failing) Read([]byte) (int, error) { return 0, cmp.Or(f.err, io.EOF) }

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
	return wrongModel(name, "is an encoder and writes no text", "/v1/embeddings, /v1/rerank, /v1/score, /classify and /tokenize")
}

// withEncoder runs next beside the encoder that the configuration names, or
// the encoder alone, when --model is itself one.
func (e *Engine) withEncoder(ctx context.Context, lib *ort.Library, dev device, next func(context.Context) error) error {
	alone, beside := encoder.IsModel(e.cfg.Model), e.cfg.EmbeddingModel
	switch {
	case alone && beside != "":
		return &engine.Failure{Cause: engine.CauseModelUnsupported, Message: "--model and --embedding-model both name an encoder",
			Remedy: "leave --embedding-model out, or name a model that chats with --model"}
	case beside == "" && !alone:
		e.chatOnly.Store(true)
		return next(ctx)
	case !alone:
		e.publish(engine.Status{Phase: engine.Loading, Progress: -1, Detail: beside})
		enc, err := e.openEncoder(lib, beside, dev, e.embeddingNames())
		if err != nil {
			return err
		}
		e.embed.Store(&embedder{Encoder: enc, names: e.embeddingNames()})
		defer e.embed.Store(nil)
		return runBeside(ctx, enc, next)
	}
	defer e.embed.Store(nil)
	e.publish(engine.Status{Phase: engine.Loading, Progress: -1, Detail: e.cfg.Model})
	for {
		model, err := e.encoderAwake(ctx, lib, dev)
		if !errors.Is(err, errIdle) || ctx.Err() != nil {
			return err
		}
		e.sleep(ctx, engine.Status{Slots: 1, Models: e.models(model)})
	}
}

// encoderAwake loads the encoder that is alone and serves it until ctx ends, or
// until nothing was asked for long enough; then it returns errIdle.
func (e *Engine) encoderAwake(ctx context.Context, lib *ort.Library, dev device) (engine.Model, error) {
	enc, err := e.openEncoder(lib, e.cfg.Model, dev, e.names())
	if err != nil {
		return engine.Model{}, err
	}
	model := engine.Model{ContextTokens: enc.MaxTokens(), Created: modified(e.cfg.Model)}
	return model, runBeside(ctx, enc, func(ctx context.Context) error {
		e.used.Store(int64(time.Since(e.born)))
		e.present(func() {
			e.embed.Store(&embedder{enc, e.names(), true})
			e.publish(engine.Status{Phase: engine.Ready, Progress: 1, Slots: 1, Models: e.models(model)})
		})
		return e.untilIdle(ctx)
	})
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

// openEncoder loads the encoder on the device. auto takes the CPU when the
// graph is not one for CUDA, as int8 graphs are not.
func (e *Engine) openEncoder(lib *ort.Library, dir string, dev device, names []string) (*encoder.Encoder, error) {
	began := time.Now()
	cfg := encoder.Config{Dir: dir, Threads: e.cfg.Threads, Spin: e.cfg.Spin, CUDA: dev.cuda, Device: dev.index}
	enc, err := encoder.Open(lib, cfg, e.log)
	if errors.Is(err, ort.ErrNoCUDA) && e.cfg.Device == "auto" {
		e.log.Warn("the encoder runs on the CPU", "err", err)
		cfg.CUDA = false
		enc, err = encoder.Open(lib, cfg, e.log)
	}
	if err != nil {
		return nil, encoderFailure(dir, err)
	}
	e.log.Info("encoder ready", "model", names[0], "onnx_runtime", lib.Version(), "dimensions", enc.Dimensions(),
		"classes", enc.Labels(), "max_tokens", enc.MaxTokens(), "load_seconds", time.Since(began).Seconds())
	return enc, nil
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
	if enc := e.embed.Load(); enc != nil && !enc.alone {
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
