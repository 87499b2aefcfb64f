package policy

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"code.dny.dev/ssrf"
	"golang.org/x/sync/errgroup"

	"infer/internal/openai"
)

// fetcher gets media from the hosts that an operator allows. The address that a
// name resolves to is judged when the connection is made, so that a name which
// resolves to something else the second time gains nothing, and again for each
// connection.
type fetcher struct {
	hosts   []host
	dialer  *net.Dialer
	client  *http.Client
	timeout time.Duration
	running chan struct{}
}

// host is one that may be asked.
type host struct {
	name  string // lower case; for *.DOMAIN it begins with the dot
	port  string
	plain bool // over http
}

// azureHost is where Azure's platform talks to its guests. It is a public
// address and yet inside.
// https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16
var azureHost = netip.MustParsePrefix("168.63.129.16/32")

func newFetcher(cfg Config) *fetcher {
	f := &fetcher{timeout: fetchTimeout, running: make(chan struct{}, fetchesAtOnce)}
	for _, text := range cfg.MediaHosts {
		h, _ := parseHost(text) // Faults has checked it
		f.hosts = append(f.hosts, h)
	}
	var four, six []netip.Prefix
	for _, text := range cfg.MediaNetworks {
		if n, _ := netip.ParsePrefix(text); n.Addr().Is4() { // Faults has checked it
			four = append(four, n)
		} else {
			six = append(six, n)
		}
	}
	// The lists of addresses are IANA's registries of special purposes.
	guard := ssrf.New(ssrf.WithAnyPort(), ssrf.WithDeniedV4Prefixes(azureHost),
		ssrf.WithAllowedV4Prefixes(four...), ssrf.WithAllowedV6Prefixes(six...))
	f.dialer = &net.Dialer{Timeout: 5 * time.Second, Control: guard.Safe}
	f.client = &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{ // without a proxy: it would resolve names for us
			DialContext: f.dialer.DialContext, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
			TLSHandshakeTimeout: 5 * time.Second, MaxIdleConnsPerHost: fetchesAtOnce, IdleConnTimeout: 30 * time.Second,
		},
	}
	return f
}

func parseHost(text string) (host, error) {
	wrong := fmt.Errorf("%q is not a host; write HOST, HOST:PORT, *.DOMAIN or http://HOST", text)
	name, plain := strings.CutPrefix(strings.ToLower(text), "http://")
	port := "443"
	if plain {
		port = "80"
	}
	if n, p, err := net.SplitHostPort(name); err == nil {
		name, port = n, p
	}
	if rest, ok := strings.CutPrefix(name, "*."); ok {
		if !strings.Contains(rest, ".") {
			return host{}, wrong
		}
		name = name[1:]
	}
	if name == "" || strings.ContainsAny(name, "/*@?#\\%[] ") || strings.Trim(port, "0123456789") != "" || port == "" {
		return host{}, wrong
	}
	return host{name, port, plain}, nil
}

func (h host) is(u *url.URL) bool {
	scheme, port := "https", "443"
	if h.plain {
		scheme, port = "http", "80"
	}
	if p := u.Port(); p != "" {
		port = p
	}
	name := strings.ToLower(u.Hostname())
	return u.Scheme == scheme && port == h.port && (name == h.name || h.name[0] == '.' && strings.HasSuffix(name, h.name))
}

// allow judges an address by what is written. Whatever two parsers might read
// differently is refused; what is fetched is written anew from what was judged.
func (f *fetcher) allow(param string, text []byte) (*url.URL, *openai.Error) {
	refuse := func(why string) (*url.URL, *openai.Error) {
		return nil, openai.Invalid(param, openai.CodeMedia, "%s %s; send the medium itself as a data: URL", param, why)
	}
	if len(text) > maxURLBytes {
		return refuse(fmt.Sprintf("is longer than the %d bytes of an address", maxURLBytes))
	}
	scheme, _, found := strings.Cut(string(text), ":")
	switch scheme = strings.ToLower(scheme); {
	case !found, scheme != "http" && scheme != "https":
		return refuse("must begin with data: or https://")
	case len(f.hosts) == 0:
		return refuse("is not fetched by this server, unless its host is named with --media-hosts")
	}
	for _, c := range text {
		if c <= ' ' || c >= 0x7f || c == '\\' {
			return refuse("has characters that do not belong into an address")
		}
	}
	u, err := url.Parse(string(text))
	if err != nil || u.Opaque != "" || u.User != nil || u.Host == "" {
		return refuse("is not a plain address of the form https://HOST/PATH")
	}
	if !slices.ContainsFunc(f.hosts, func(h host) bool { return h.is(u) }) {
		return refuse("is not at one of the hosts that --media-hosts allows, over https")
	}
	u.Fragment, u.RawFragment = "", ""
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
		return nil, unreadable(reason(err))
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
		return nil, unreadable(reason(err))
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

// reason says what went wrong without telling a stranger of the network.
func reason(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, ssrf.ErrProhibitedIP), errors.Is(err, ssrf.ErrProhibitedNetwork):
		return "its host has an address that is not public"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "its host does not answer in time"
	}
	return "its host does not answer properly"
}
