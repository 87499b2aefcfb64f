package serve

import (
	"context"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/chi/v5"

	"infer/internal/openai"
)

// other is the metric label of every path that is not a route.
const other = "other"

// observe gives a request its id, its log line and its metrics, and turns a
// panic into an answer.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x := newExchange(s, w, r)
		defer func() {
			p := recover()
			if p != nil && p != http.ErrAbortHandler {
				s.panicked(x, p)
				if x.status == 0 {
					openai.WriteError(x, openai.Internal("the server hit a fault of its own; report it with this answer's X-Request-Id"))
					p = nil
				}
			}
			x.leave()
			s.record(x, r)
			// Half an answer must not look whole, nor none like an empty one to a
			// client that only has no more to send.
			if _, own := workOf(r.Context()); p != nil || x.gone && !own {
				panic(http.ErrAbortHandler)
			}
		}()
		next.ServeHTTP(x, x.into(r))
	})
}

func (s *Server) panicked(x *exchange, p any) {
	s.log.Error("panic", "request_id", x.id, "panic", p, "stack", string(debug.Stack()))
}

// record writes the one log line of a request and its metrics.
func (s *Server) record(x *exchange, r *http.Request) {
	took := time.Since(x.start)
	route, model, status := x.route, x.model, x.status
	if route == "" {
		route = routeOf(r.Context())
	}
	if model == "" {
		model = unknown
	}
	if x.gone {
		status = statusClientGone
	} else if status == 0 {
		status = http.StatusOK // net/http writes it for a handler that wrote nothing
	}
	s.metrics.requests.WithLabelValues(route, model, strconv.Itoa(status)).Inc()
	if x.modeled && s.cfg.Callers != nil {
		s.metrics.callers.count(x, status)
	}
	if x.timed {
		s.metrics.seconds.Observe(took.Seconds())
	}
	if x.cut != "" {
		s.metrics.cut.WithLabelValues(x.cut).Inc()
	}
	level := slog.LevelInfo
	if quiet(route) {
		level = slog.LevelDebug
	}
	// The request's context may be over; the line is not about it.
	s.log.LogAttrs(context.Background(), level, "request", x.attrs(r, route, status, took)...)
}

// traceID is the trace of a W3C traceparent, or empty when that is not one.
func traceID(parent string) string {
	const form = "00-00000000000000000000000000000000-0000000000000000-00"
	if len(parent) != len(form) {
		return ""
	}
	for i := range form {
		if c := parent[i]; (form[i] == '-') != (c == '-') || (c != '-' && !strings.ContainsRune("0123456789abcdef", rune(c))) {
			return ""
		}
	}
	return parent[3:35]
}

func (x *exchange) attrs(r *http.Request, route string, status int, took time.Duration) []slog.Attr {
	a := []slog.Attr{
		slog.String("method", clip(r.Method, 16)), slog.String("route", route),
		slog.Int("status", status), slog.Int64("bytes", x.written),
		slog.Float64("duration_seconds", took.Seconds()), slog.String("request_id", x.id),
		slog.String("remote_addr", r.RemoteAddr), slog.String("user_agent", clip(r.UserAgent(), 128)),
	}
	if route == other {
		a = append(a, slog.String("path", clip(r.URL.Path, 128)))
	}
	if x.caller != "" {
		a = append(a, slog.String("key", x.caller))
	}
	if id := traceID(r.Header.Get("Traceparent")); id != "" {
		a = append(a, slog.String("trace_id", id))
	}
	if !x.modeled {
		return a
	}
	if x.engineID != x.id {
		a = append(a, slog.String("engine_request_id", x.engineID))
	}
	a = append(a, slog.String("model", x.model), slog.Bool("stream", x.stream),
		slog.Float64("queue_seconds", max(x.queued, 0).Seconds()))
	if m := x.meter; m != nil {
		a = append(a, slog.Int64("prompt_tokens", m.prompt.Load()), slog.Int64("completion_tokens", m.completion.Load()))
		if seconds, joules := m.bill.Cost(); seconds > 0 || joules > 0 {
			a = append(a, slog.Float64("gpu_seconds", seconds), slog.Float64("joules", joules))
		}
		if ttft, ok := m.ttft(); ok {
			a = append(a, slog.Float64("ttft_seconds", ttft.Seconds()))
		}
	}
	if x.cut != "" {
		a = append(a, slog.String("cut", x.cut))
	}
	return a
}

// routeOf names the pattern that matched.
func routeOf(ctx context.Context) string {
	if rc := chi.RouteContext(ctx); rc != nil {
		if p := rc.RoutePattern(); p != "" && p != "/*" {
			return p
		}
	}
	return other
}
