package serve

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/go-chi/chi/v5"

	"infer/internal/caller"
)

// Extra is what other rooms add to the surface. Its routes and its Before see
// requests whose callers are known.
type Extra struct {
	Routes map[string]http.HandlerFunc     // by method and pattern, such as "GET /v1/files/{id}"
	Index  string                          // their lines of GET /
	Before func(http.Handler) http.Handler // stands before the engine on its routes; the body is read and sound
}

// mount adds the routes of others.
func (e *Extra) mount(r chi.Router) {
	if e == nil {
		return
	}
	for pattern, h := range e.Routes {
		method, path, _ := strings.Cut(pattern, " ")
		r.MethodFunc(method, path, h)
		if method == http.MethodGet {
			r.MethodFunc(http.MethodHead, path, h)
		}
	}
}

// before returns next with what stands before it. The program's own requests
// have passed it already.
func (e *Extra) before(next http.Handler) http.Handler {
	if e == nil || e.Before == nil {
		return next
	}
	first := e.Before(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, own := workOf(r.Context()); own {
			next.ServeHTTP(w, r)
			return
		}
		first.ServeHTTP(w, r)
	})
}

func (e *Extra) index() string {
	if e == nil {
		return ""
	}
	return e.Index
}

// Work is what the program does itself on behalf of a caller, who was let in
// when it was accepted.
type Work struct {
	Caller  string
	Batch   bool // takes only what interactive requests leave
	Counted bool // the request that it was accepted with was counted against the caller's minute; see Accepted
}

type workKey struct{}

func workOf(ctx context.Context) (Work, bool) {
	w, ok := ctx.Value(workKey{}).(Work)
	return w, ok
}

// Own returns the handler of the requests of work. They take the way of a
// client's and are metered and limited as such. One whose context is cancelled,
// for whatever cause, counts as a client's that left, and one whose time is over
// as past its deadline.
func (s *Server) Own(work Work) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(r.Context()))
		defer cancel(nil)
		defer context.AfterFunc(r.Context(), func() { cancel(endOf(r.Context())) })()
		s.router.ServeHTTP(w, r.WithContext(context.WithValue(ctx, workKey{}, work)))
	})
}

// endOf is what the end of the program's own work means to a request. Its cause
// has a meaning only to whoever does the work.
func endOf(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return errDeadline
	}
	return context.Canceled
}

// Accepted says that a request to the model is answered by work that goes on
// without it. It stays counted, and is charged for nothing else: tokens and a
// place among the caller's requests at once are for the work to take.
func Accepted(r *http.Request) { exchangeOf(r).settle() }

// Caller names who sent a request that came through the Server. The name is
// empty where there are no keys.
func Caller(r *http.Request) string { return exchangeOf(r).caller }

// named returns the account of a caller, nil when there is none any more.
func (c *Callers) named(name string) *caller.Account {
	if c == nil || name == "" {
		return nil
	}
	if a, ok := c.Keys.Named(name); ok {
		return a
	}
	if c.Entra != nil {
		return c.Entra.Named(name)
	}
	return nil
}
