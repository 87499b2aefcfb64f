package policy

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"infer/internal/openai"
)

// fetcher gets media from the hosts that an operator allows.
type fetcher struct {
	hosts   *Hosts
	client  *http.Client
	timeout time.Duration
	running chan struct{}
}

func newFetcher(cfg Config) *fetcher {
	hosts := newHosts(cfg.MediaHosts, cfg.MediaNetworks) // Faults has checked both
	client := hosts.Client()
	return &fetcher{hosts: hosts, client: client, timeout: fetchTimeout, running: make(chan struct{}, fetchesAtOnce)}
}

// allow judges an address by what is written.
func (f *fetcher) allow(param string, text []byte) (*url.URL, *openai.Error) {
	refuse := func(why string) (*url.URL, *openai.Error) {
		return nil, openai.Invalid(param, openai.CodeMedia, "%s %s; send the medium itself as a data: URL", param, why)
	}
	scheme, _, found := strings.Cut(string(text), ":")
	switch scheme = strings.ToLower(scheme); {
	case !found, scheme != "http" && scheme != "https":
		return refuse("must begin with data: or https://")
	case f.hosts.none():
		return refuse("is not fetched by this server, unless its host is named with --media-hosts")
	}
	u, why := f.hosts.Judge(string(text), "--media-hosts")
	if why != "" {
		return refuse(why)
	}
	return u, nil
}

// fetchAll puts the media that were named by address into the body, which may
// become no larger than limit.
func (p *Policy) fetchAll(ctx context.Context, body []byte, media []medium, limit int64) ([]byte, *openai.Error) {
	media = slices.DeleteFunc(media, func(m medium) bool { return m.fetch == nil })
	if len(media) == 0 {
		return body, nil
	}
	slices.SortFunc(media, func(a, b medium) int { return a.value.At - b.value.At })
	urls := make([][]byte, len(media))
	var total atomic.Int64
	total.Store(int64(len(body)))
	g, gctx := errgroup.WithContext(ctx)
	for i, m := range media {
		g.Go(func() error {
			var e *openai.Error
			if urls[i], e = p.fetch(gctx, m); e != nil {
				return e
			}
			if total.Add(int64(len(urls[i]))) > limit {
				return &openai.Error{Status: http.StatusRequestEntityTooLarge, Type: openai.TypeInvalidRequest, Code: openai.CodeTooLarge, Param: m.param,
					Message: "the body with its media is larger than " + strconv.FormatInt(limit, 10) + " bytes; send fewer or raise --max-media-body-bytes"}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		var e *openai.Error
		errors.As(err, &e)
		return nil, e
	}
	out, from := make([]byte, 0, total.Load()), 0
	for i, m := range media {
		out = append(append(out, body[from:m.value.At]...), urls[i]...)
		from = m.value.At + len(m.value.Text)
	}
	return append(out, body[from:]...), nil
}

// fetch returns a medium as a data: URL in quotes.
func (p *Policy) fetch(ctx context.Context, m medium) ([]byte, *openai.Error) {
	unreadable := func(why string) *openai.Error {
		return openai.Invalid(m.param, openai.CodeMediaUnreadable, "%s cannot be fetched: %s", m.param, why)
	}
	select {
	case p.fetcher.running <- struct{}{}:
		defer func() { <-p.fetcher.running }()
	case <-ctx.Done():
		return nil, unreadable("the request was given up")
	}
	ctx, cancel := context.WithTimeout(ctx, p.fetcher.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, m.fetch.String(), nil)
	if err != nil {
		return nil, unreadable("its address is not one")
	}
	r.Header.Set("User-Agent", "infer")
	r.Header.Set("Accept", strings.Join(p.cfg.MediaTypes, ", "))
	resp, err := p.fetcher.client.Do(r)
	if err != nil {
		return nil, unreadable(Reason(err))
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	kind, ok := p.allowedType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		return nil, unreadable("its host redirects, which is not followed; name the final address")
	case resp.StatusCode != http.StatusOK:
		return nil, unreadable(fmt.Sprintf("its host answers with status %d", resp.StatusCode))
	case resp.Header.Get("Content-Encoding") != "":
		return nil, unreadable("its host compresses it, which is not undone")
	case !ok:
		return nil, p.wrongType(m.param)
	case resp.ContentLength > p.cfg.MaxMediaBytes:
		return nil, p.tooBig(m.param)
	}
	content, err := io.ReadAll(io.LimitReader(resp.Body, p.cfg.MaxMediaBytes+1))
	if err == nil { // a host that sees us go may still end its answer in good order
		err = ctx.Err()
	}
	switch {
	case err != nil:
		return nil, unreadable(Reason(err))
	case int64(len(content)) > p.cfg.MaxMediaBytes:
		return nil, p.tooBig(m.param)
	}
	if e := p.genuine(m.param, kind, bytes.NewReader(content)); e != nil {
		return nil, e
	}
	out := append([]byte(`"data:`+kind+`;base64,`), make([]byte, base64.StdEncoding.EncodedLen(len(content))+1)...)
	base64.StdEncoding.Encode(out[len(out)-1-base64.StdEncoding.EncodedLen(len(content)):], content)
	out[len(out)-1] = '"'
	return out, nil
}
