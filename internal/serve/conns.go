package serve

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"

	"infer/internal/openai"
)

// reserve is how many connections are taken over the bound, so that a probe
// still finds an answer: a replica that is full must not be restarted for it.
const reserve = 64

// conns counts the connections of one server.
type conns struct {
	limit int64
	open  atomic.Int64
}

type overKey struct{}

// arrive is a http.Server's ConnContext: it marks the connections over the
// bound, and closes those over the reserve at once. A connection left in the
// kernel's backlog would hang its client, and every probe behind it, without a
// word.
func (c *conns) arrive(ctx context.Context, conn net.Conn) context.Context {
	n := c.open.Add(1)
	if n > c.limit+reserve {
		_ = conn.Close() // net/http finds it closed, and tells leave
	}
	if n > c.limit {
		return context.WithValue(ctx, overKey{}, true)
	}
	return ctx
}

// leave is a http.Server's ConnState.
func (c *conns) leave(_ net.Conn, state http.ConnState) {
	if state == http.StateClosed || state == http.StateHijacked {
		c.open.Add(-1)
	}
}

// connection decides whether a connection lives on after the answer, and
// answers only what machines ask of a replica's health on one over the bound.
func (s *Server) connection(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if doubtful(r) {
			w.Header().Set("Connection", "close")
		}
		if r.Context().Value(overKey{}) == nil {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Connection", "close")
		if quiet(r.URL.Path) {
			next.ServeHTTP(w, r)
			return
		}
		s.metrics.rejected.WithLabelValues("connections").Inc()
		openai.WriteError(w, &openai.Error{Status: http.StatusServiceUnavailable, Type: openai.TypeUnavailable, Code: openai.CodeConnections,
			Message: "all connections are taken; retry after the time in Retry-After, add replicas or raise --max-connections"})
	})
}

// doubtful says that somebody in front of us may have seen another end of the
// request than we did, so that what follows on the connection is not to be
// trusted: a chunked body may have come with a length, and one of HTTP/1.0 with
// chunks. RFC 9112, section 6.1, wants such connections closed, but net/http
// has removed the other header when we see the request.
func doubtful(r *http.Request) bool {
	return r.ProtoMajor == 1 && (r.ProtoMinor == 0 || len(r.TransferEncoding) > 0)
}
