package serve

import (
	"encoding/json/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"infer/internal/engine"
	"infer/internal/openai"
	"infer/internal/translate"
)

// routes is the whole surface. Only the paths listed here reach the engine.
func (s *Server) routes(reg *prometheus.Registry) *chi.Mux {
	r := chi.NewRouter()
	r.Use(s.observe, s.connection)
	if s.cfg.Front != nil {
		r.Use(s.cfg.Front)
	}
	r.Use(s.authorize)
	r.NotFound(s.notFound)
	r.MethodNotAllowed(s.methodNotAllowed)

	r.Post("/v1/chat/completions", s.engine(s.gate.Acquire, true))
	r.Post("/v1/completions", s.engine(s.gate.Acquire, true))
	r.Post("/v1/responses", s.engine(s.gate.Acquire, true, translate.Responses))
	r.Post("/v1/messages", s.engine(s.gate.Acquire, true, translate.Messages))
	r.Post("/v1/messages/count_tokens", s.engine(s.whenReady, false, translate.CountTokens))
	r.Post("/v1/audio/transcriptions", s.asks(s.understandForm, s.gate.Acquire, true))
	r.Post("/v1/audio/translations", s.asks(s.understandForm, s.gate.Acquire, true))
	for _, path := range []string{"/v1/embeddings", "/v1/rerank", "/v1/score", "/classify", "/pooling"} {
		r.Post(path, s.engine(s.encode, false))
	}
	for alias := range aliases {
		r.Post(alias, s.engine(s.encode, false))
	}
	r.Post("/tokenize", s.engine(s.whenReady, false))
	r.Post("/detokenize", s.engine(s.whenReady, false))

	get := func(pattern string, h http.HandlerFunc) {
		r.Get(pattern, h)
		r.Head(pattern, h) // net/http leaves the body out
	}
	get("/v1/models", s.models)
	get("/v1/models/*", s.model)
	get("/livez", s.livez)
	get("/readyz", s.readyz)
	get("/health", s.readyz)
	get("/startupz", s.startupz)
	if s.cfg.MetricsListen == "" {
		get("/scale", s.scale)
		get("/metrics", s.exposition(reg).ServeHTTP)
	}
	get("/", s.index)
	s.cfg.Extra.mount(r)
	return r
}

func (s *Server) exposition(reg *prometheus.Registry) http.Handler {
	var all prometheus.Gatherer = reg
	if own, ok := s.eng.(prometheus.Gatherer); ok { // under names of its own, so that one scrape is enough
		all = prometheus.Gatherers{reg, own}
	}
	return promhttp.HandlerFor(all, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// MetricsHandler answers /metrics and /scale without a key, for the port that
// Config.MetricsListen names. reg is the registry that New was given.
func (s *Server) MetricsHandler(reg *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.exposition(reg))
	mux.HandleFunc("GET /scale", s.scale)
	return mux
}

// aliases are other paths of one route: vLLM, Jina and Cohere have each their own.
var aliases = map[string]string{"/rerank": "/v1/rerank", "/v2/rerank": "/v1/rerank", "/score": "/v1/score"}

// quiet are the routes that machines ask all day.
func quiet(route string) bool {
	switch route {
	case "/livez", "/readyz", "/health", "/startupz", "/metrics", "/scale":
		return true
	}
	return false
}

func (s *Server) notFound(w http.ResponseWriter, r *http.Request) {
	openai.WriteError(w, &openai.Error{Status: http.StatusNotFound, Type: openai.TypeNotFound, Code: openai.CodeRouteNotFound,
		Message: "no such path; GET / lists the endpoints"})
}

func (s *Server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	path := r.URL.RawPath
	if path == "" {
		path = r.URL.Path
	}
	var allow []string
	for _, m := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete} {
		if s.router.Match(chi.NewRouteContext(), m, path) {
			allow = append(allow, m)
		}
	}
	w.Header().Set("Allow", strings.Join(allow, ", "))
	openai.WriteError(w, &openai.Error{Status: http.StatusMethodNotAllowed, Type: openai.TypeInvalidRequest, Code: openai.CodeMethodNotAllowed,
		Message: "this path does not answer that method; use " + strings.Join(allow, " or ")})
}

const index = `infer

POST /v1/chat/completions   OpenAI chat, with streaming
POST /v1/completions        OpenAI completions, with streaming
POST /v1/responses          OpenAI responses, with streaming
POST /v1/messages           Anthropic messages, with streaming; /count_tokens
POST /v1/embeddings         OpenAI embeddings, by an encoder
POST /v1/rerank             documents by their relevance to a query (also /rerank, /v2/rerank)
POST /v1/score              relevance of pairs of texts (also /score)
POST /classify              classes of texts
POST /pooling               what an encoder makes of texts
POST /v1/audio/...          transcriptions and translations of a recording
POST /tokenize              text to token ids
POST /detokenize            token ids to text
GET  /v1/models[/ID]        served models
GET  /livez                 should this process live on
GET  /readyz                may traffic be sent (also /health)
GET  /startupz              has the engine started
GET  /scale                 how full this replica is, for a scaler
GET  /metrics               Prometheus and OpenMetrics
`

func (s *Server) index(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(index + s.cfg.Extra.index())) // the client may have left
}

// models answers also while the engine loads.
func (s *Server) models(w http.ResponseWriter, r *http.Request) {
	list := openai.ModelList{Object: "list", Data: []openai.ModelObject{}}
	limits := exchangeOf(r).limits
	for _, m := range s.eng.Status().Models {
		if limits.Allows(m.ID) {
			list.Data = append(list.Data, modelObject(m))
		}
	}
	writeJSON(w, http.StatusOK, list)
}

func (s *Server) model(w http.ResponseWriter, r *http.Request) {
	id := chi.URLParam(r, "*")
	if r.URL.RawPath != "" { // chi matched the escaped path
		if plain, err := url.PathUnescape(id); err == nil {
			id = plain
		}
	}
	served := slices.DeleteFunc(slices.Clone(s.eng.Status().Models), func(m engine.Model) bool { return !exchangeOf(r).limits.Allows(m.ID) })
	for _, m := range served {
		if m.ID == id {
			writeJSON(w, http.StatusOK, modelObject(m))
			return
		}
	}
	openai.WriteError(w, modelNotFound(id, served))
}

// writeJSON answers with v, which always marshals.
func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		openai.WriteError(w, openai.Internal("the answer could not be written as JSON"))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // the client may have left
}
