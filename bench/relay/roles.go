package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// roles are what a process of this program can be.
var roles = map[string]func(context.Context, []string) error{
	"upstream": func(ctx context.Context, a []string) error { return serve(ctx, upstream(), a...) },
	"copy":     runCopy,
	"proxy": func(ctx context.Context, a []string) error {
		p, err := reverse(a[1])
		if err != nil {
			return err
		}
		return serve(ctx, p, a[0])
	},
}

// listen opens unix:PATH or HOST:PORT.
func listen(address string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return net.Listen("unix", path)
	}
	return net.Listen("tcp", address)
}

func dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return d.DialContext(ctx, "unix", path)
	}
	return d.DialContext(ctx, "tcp", address)
}

func serve(ctx context.Context, h http.Handler, addresses ...string) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, len(addresses))
	for _, a := range addresses {
		ln, err := listen(a)
		if err != nil {
			return err
		}
		go func() { ended <- srv.Serve(ln) }()
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return srv.Close()
	}
}

// runVLLM is the upstream under the command line of vLLM.
func runVLLM(ctx context.Context, args []string) error {
	for i, a := range args {
		if a == "--uds" && i+1 < len(args) {
			return serve(ctx, upstream(), "unix:"+args[i+1])
		}
	}
	return fmt.Errorf("no --uds in %q", args)
}

// runCopy copies bytes between each client and the upstream: as little as a Go
// program in the middle can do.
func runCopy(ctx context.Context, a []string) error {
	ln, err := listen(a[0])
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = ln.Close() })
	for {
		client, err := ln.Accept()
		if err != nil {
			return nil // told to end
		}
		go func() {
			defer func() { _ = client.Close() }()
			up, err := dial(ctx, a[1])
			if err != nil {
				return
			}
			defer func() { _ = up.Close() }()
			var wg sync.WaitGroup
			wg.Go(func() { pump(up, client) })
			pump(client, up)
			_ = client.Close()
			_ = up.Close()
			wg.Wait()
		}()
	}
}

func pump(to io.Writer, from io.Reader) {
	buf := make([]byte, 8<<10)
	// Without the types' own ways, which would splice.
	_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, buf)
}

// reverse is httputil.ReverseProxy as one would write it today.
func reverse(to string) (http.Handler, error) {
	target, err := url.Parse("http://upstream")
	if err != nil {
		return nil, err
	}
	return &fullDuplex{&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true,
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, to) }},
	}}, nil
}

// fullDuplex keeps net/http from draining a request whose answer has begun,
// which cuts streams: golang.org/issue/40747.
type fullDuplex struct{ next http.Handler }

// ServeHTTP implements http.Handler.
func (f *fullDuplex) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).EnableFullDuplex()
	f.next.ServeHTTP(w, r)
}

// upstream answers as vLLM does, at the pace that the request's headers ask
// for; they are part of the body's "user" because not all pass headers on.
func upstream() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /version", text(`{"version":"0.32.0"}`))
	mux.HandleFunc("GET /metrics", text("# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name=\"m\"} 1\n"))
	mux.HandleFunc("GET /v1/models", text(`{"object":"list","data":[{"id":"m","object":"model","created":1,"max_model_len":4096}]}`))
	mux.HandleFunc("POST /v1/completions", text(`{"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":" a","finish_reason":"length"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`))
	mux.HandleFunc("POST /v1/chat/completions", chat)
	return mux
}

func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, body) // whoever asks may leave
	}
}

const whole = `{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}`

func chat(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	_, wish, streams := strings.Cut(string(body), `"user":"pace:`) // pace:TOKENS:MICROSECONDS
	if !streams {
		text(whole)(w, r)
		return
	}
	wish, _, _ = strings.Cut(wish, `"`)
	var n, gap int
	if _, err := fmt.Sscanf(wish, "%d:%d", &n, &gap); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	pace(w, r, n, time.Duration(gap)*time.Microsecond, strings.Contains(string(body), `"continuous_usage_stats":true`))
}

// pace streams n tokens with gaps, the second after a random part of a gap, so
// that streams do not beat in time.
func pace(w http.ResponseWriter, r *http.Request, n int, gap time.Duration, usage bool) {
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	next := time.Now().Add(rand.N(gap + 1))
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for i := range n {
		counted := ""
		if usage {
			k := strconv.Itoa(i + 1)
			counted = `,"usage":{"prompt_tokens":9,"total_tokens":` + strconv.Itoa(i+10) + `,"completion_tokens":` + k + `}`
		}
		_, _ = io.WriteString(w, `data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1764082800,"model":"m","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null,"token_ids":null}]`+counted+"}\n\n")
		if rc.Flush() != nil {
			return
		}
		timer.Reset(time.Until(next))
		select {
		case <-timer.C:
		case <-r.Context().Done():
			return
		}
		next = next.Add(gap)
	}
	_, _ = io.WriteString(w, "data: [DONE]\n\n")
}
