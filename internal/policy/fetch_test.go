package policy

import (
	"compress/gzip"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"infer/internal/openai"
)

// names is a DNS server on pipes: it answers with one address after the other,
// and with the last for ever.
type names struct {
	mu        sync.Mutex
	addresses []string
	asked     int // answers with an address
}

func (n *names) resolver() *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go n.serve(theirs)
		return ours, nil
	}}
}

// serve speaks DNS over TCP, RFC 1035: a header, the question, which ends
// after its type and class, and at most one answer.
func (n *names) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	var size [2]byte
	for {
		if _, err := io.ReadFull(c, size[:]); err != nil {
			return
		}
		q := make([]byte, binary.BigEndian.Uint16(size[:]))
		if _, err := io.ReadFull(c, q); err != nil {
			return
		}
		end := 12
		for q[end] != 0 {
			end += int(q[end]) + 1
		}
		reply := append(q[:2:2], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0)
		reply = append(reply, q[12:end+5]...)
		if ip := n.next(binary.BigEndian.Uint16(q[end+1:])); ip.IsValid() {
			reply[7] = 1
			reply = append(append(reply, 0xc0, 12), q[end+1:end+5]...)
			reply = append(reply, 0, 0, 0, 0, 0, byte(ip.BitLen()/8))
			reply = append(reply, ip.AsSlice()...)
		}
		if _, err := c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
			return
		}
	}
}

func (n *names) next(kind uint16) netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	ip := netip.MustParseAddr(n.addresses[0])
	if want := map[bool]uint16{true: 1, false: 28}[ip.Is4()]; kind != want {
		return netip.Addr{}
	}
	if n.asked++; len(n.addresses) > 1 {
		n.addresses = n.addresses[1:]
	}
	return ip
}

// hosted serves h over TLS as example.com, and returns the policy that may ask it
// and the base of its addresses.
func hosted(t *testing.T, h http.HandlerFunc, set func(*Config)) (*Policy, string) {
	t.Helper()
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // clients that give up are what is tested
	srv.StartTLS()
	t.Cleanup(srv.Close)
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())
	p := media(t, func(c *Config) {
		c.MediaHosts, c.MediaNetworks = []string{"example.com:" + port}, []string{"127.0.0.1/32"}
		if set != nil {
			set(c)
		}
	})
	p.fetcher.hosts.dialer.Resolver = (&names{addresses: []string{"127.0.0.1"}}).resolver()
	p.fetcher.client.Transport.(*http.Transport).TLSClientConfig = srv.Client().Transport.(*http.Transport).TLSClientConfig
	t.Cleanup(p.fetcher.client.CloseIdleConnections)
	return p, "https://example.com:" + port
}

func TestFetch(t *testing.T) {
	pic := encoded("image/png")
	p, base := hosted(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("User-Agent") != "infer" || r.Header.Get("Accept-Encoding") != "" || r.Header.Get("Cookie") != "" {
			t.Errorf("asked with %v", r.Header)
		}
		w.Header().Set("Content-Type", map[bool]string{true: "image/png", false: "Image/JPG; q=1"}[strings.HasSuffix(r.URL.Path, "png")])
		if strings.HasSuffix(r.URL.Path, "png") {
			_, _ = w.Write(pic)
		} else {
			_, _ = w.Write(encoded("image/jpeg"))
		}
	}, nil)
	two := func(a, b string) string {
		return ` { "n":1.0,"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"detail":"low","url":"` + a + `"}},"é",{"image_url":"` + b + `"} ]}] }`
	}
	got, req, e := apply(t, t.Context(), p, chat, two(base+`\/a.png?x=1#y`, base+"/b"), seeing)
	if want := two(dataURL("image/png", pic), dataURL("image/jpeg", encoded("image/jpeg"))); e != nil || got != want {
		t.Errorf("%v\n got %.300s\nwant %.300s", e, got, want)
	}
	if req.PromptTokens < 2*partTokens-100 {
		t.Errorf("counted as %d tokens", req.PromptTokens)
	}
}

// misbehave is a host of media that does as the path says.
func misbehave(w http.ResponseWriter, r *http.Request, followed *atomic.Bool, stop <-chan struct{}) {
	typed := func(w http.ResponseWriter, kind string) { w.Header().Set("Content-Type", kind) }
	switch r.URL.Path {
	case "/redirect":
		http.Redirect(w, r, "https://169.254.169.254/latest/meta-data", http.StatusFound)
	case "/redirect-here":
		http.Redirect(w, r, "/followed", http.StatusTemporaryRedirect)
	case "/followed":
		followed.Store(true)
	case "/missing":
		http.NotFound(w, r)
	case "/html":
		typed(w, "text/html")
		_, _ = io.WriteString(w, "<img>")
	case "/untyped":
		w.Header()["Content-Type"] = nil
		_, _ = w.Write(encoded("image/png"))
	case "/lies":
		typed(w, "image/png")
		_, _ = w.Write(encoded("image/gif"))
	case "/bomb":
		typed(w, "image/png")
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		for range 64 {
			if _, err := z.Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
		_ = z.Close()
	case "/long":
		typed(w, "image/png")
		w.Header().Set("Content-Length", "9999999")
		_, _ = w.Write(encoded("image/png"))
	case "/endless":
		typed(w, "image/png")
		for {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	case "/cut":
		typed(w, "image/png")
		w.Header().Set("Content-Length", "500")
		_, _ = w.Write(encoded("image/png"))
	case "/slow":
		typed(w, "image/png")
		_, _ = w.Write(encoded("image/png")[:9])
		_ = http.NewResponseController(w).Flush()
		fallthrough
	case "/silent":
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}
}

func TestFetchRefused(t *testing.T) {
	const url = "messages[0].content[1].image_url.url"
	var followed atomic.Bool
	stop := make(chan struct{})
	defer close(stop)
	p, base := hosted(t, func(w http.ResponseWriter, r *http.Request) { misbehave(w, r, &followed, stop) }, nil)
	for path, want := range map[string]struct{ code, says string }{
		"/redirect":      {openai.CodeMediaUnreadable, "redirects, which is not followed"},
		"/redirect-here": {openai.CodeMediaUnreadable, "redirects, which is not followed"},
		"/missing":       {openai.CodeMediaUnreadable, "status 404"},
		"/html":          {openai.CodeMedia, "a media type that is not allowed"},
		"/untyped":       {openai.CodeMedia, "a media type that is not allowed"},
		"/lies":          {openai.CodeMediaUnreadable, "not what its type says, image/png"},
		"/bomb":          {openai.CodeMediaUnreadable, "compresses it"},
		"/long":          {openai.CodeLimit, "larger than the 65536 bytes allowed"},
		"/endless":       {openai.CodeLimit, "larger than the 65536 bytes allowed"},
		"/cut":           {openai.CodeMediaUnreadable, "does not answer properly"},
	} {
		out, _, e := apply(t, t.Context(), p, chat, imageURL(base+path), seeing)
		if e == nil || e.Status != 400 || e.Code != want.code || e.Param != url || !strings.Contains(e.Message, want.says) || out != "" {
			t.Errorf("%s: %+v, want %s %s", path, e, want.code, want.says)
		}
	}
	p.fetcher.timeout = 300 * time.Millisecond
	for _, path := range []string{"/slow", "/silent"} {
		if _, _, e := apply(t, t.Context(), p, chat, imageURL(base+path), seeing); e == nil || !strings.Contains(e.Message, "does not answer in time") {
			t.Errorf("%s: %+v", path, e)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, e := apply(t, ctx, p, chat, imageURL(base+"/silent"), seeing); e == nil {
		t.Error("fetched for a client that left")
	}
	if followed.Load() {
		t.Error("a redirect was followed")
	}
}

// A name is judged by the address that is connected to, each time.
func TestNamesThatMove(t *testing.T) {
	pic := encoded("image/png")
	var asked atomic.Int64
	p, base := hosted(t, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Connection", "close") // the next one is resolved again
		_, _ = w.Write(pic)
	}, nil)
	n := &names{addresses: []string{"127.0.0.1", "127.0.0.2"}} // the second is not allowed
	p.fetcher.hosts.dialer.Resolver = n.resolver()
	if _, _, e := apply(t, t.Context(), p, chat, imageURL(base+"/a"), seeing); e != nil {
		t.Fatalf("first: %v", e)
	}
	_, _, e := apply(t, t.Context(), p, chat, imageURL(base+"/a"), seeing)
	if e == nil || e.Code != openai.CodeMediaUnreadable || !strings.Contains(e.Message, "an address that is not public") {
		t.Errorf("second: %+v", e)
	}
	if asked.Load() != 1 || n.asked != 2 {
		t.Errorf("asked the host %d times and the name %d times, want 1 and 2", asked.Load(), n.asked)
	}
}

// Nothing behind the door is reached, however its address is written.
func TestAddressesThatAreNotPublic(t *testing.T) {
	p := media(t, func(c *Config) { c.MediaHosts = []string{"example.com"} })
	for _, address := range []string{"127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "168.63.129.16",
		"100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "192.0.0.192", "198.18.0.1", "203.0.113.1",
		"::1", "::", "fe80::1", "fd00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1",
		"64:ff9b:1::a00:1", "2002:7f00:1::", "2001:db8::1", "2001::1"} {
		p.fetcher.hosts.dialer.Resolver = (&names{addresses: []string{address}}).resolver()
		_, _, e := apply(t, t.Context(), p, chat, imageURL("https://example.com/a"), seeing)
		if e == nil || e.Code != openai.CodeMediaUnreadable || !strings.Contains(e.Message, "an address that is not public") {
			t.Errorf("%s: %+v", address, e)
		}
	}
}

func TestAllowedAddresses(t *testing.T) {
	p := media(t, func(c *Config) {
		c.MediaHosts = []string{"Images.example.com", "cdn.example.com:8443", "*.blob.example.net", "http://plain.example.com", "127.0.0.1"}
	})
	for _, ok := range []string{"https://images.example.com/a", "HTTPS://IMAGES.example.COM/a", "https://images.example.com:443/a", "https://cdn.example.com:8443/a?b=c",
		"https://a.blob.example.net/x", "https://a.b.blob.example.net/x", "http://plain.example.com/", "https://127.0.0.1/a"} {
		if u, e := p.fetcher.allow("x", []byte(ok)); e != nil || u == nil {
			t.Errorf("%s: %v", ok, e)
		}
	}
	for _, no := range []string{"http://images.example.com/a", "https://plain.example.com/", "https://images.example.com:8443/", "https://cdn.example.com/",
		"https://blob.example.net/", "https://evilblob.example.net/", "https://images.example.com.evil.net/", "https://evil.net/images.example.com",
		"https://images.example.com@evil.net/", "https://evil.net#@images.example.com/", "https://evil.net\\@images.example.com/",
		"https://images.example.com\\@evil.net/", "https:\\\\images.example.com/", "https:images.example.com", "https:///images.example.com/a",
		"https://user:pass@images.example.com/", "https://images.example.com./a", "https://images.example.com%2f@evil.net/",
		"https://images%2eexample.com/", "https://ímages.example.com/", "https://images.example.com/\x00", "https://images.example.com/ a",
		"https://[::1]/", "https://0x7f000001/", "https://2130706433/", "https://127.1/", "https://", "https", "javascript:alert(1)", "file://images.example.com/a",
		"https://images.example.com/" + strings.Repeat("a", maxURLBytes)} {
		if u, e := p.fetcher.allow("x", []byte(no)); e == nil || e.Code != openai.CodeMedia {
			t.Errorf("%.80s: allowed as %v", no, u)
		}
	}
}

func TestFetchesAreBounded(t *testing.T) {
	var running, most atomic.Int64
	full := make(chan struct{})
	var once sync.Once
	pic := append(encoded("image/png"), make([]byte, 1000)...)
	p, base := hosted(t, func(w http.ResponseWriter, _ *http.Request) {
		n := running.Add(1)
		defer running.Add(-1)
		most.Store(max(most.Load(), n))
		if n >= fetchesAtOnce {
			once.Do(func() { close(full) })
		}
		<-full
		w.Header().Set("Content-Type", "image/png")
		_, _ = w.Write(pic)
	}, nil)
	p.fetcher.timeout = time.Minute
	var parts []string
	for i := range maxMedia {
		parts = append(parts, fmt.Sprintf(`{"image_url":"%s/%d"}`, base, i))
	}
	body := `{"messages":[{"role":"user","content":[` + strings.Join(parts, ",") + `]}]}`
	if _, _, e := apply(t, t.Context(), p, chat, body, seeing); e != nil {
		t.Errorf("%v", e)
	}
	if got := most.Load(); got > fetchesAtOnce {
		t.Errorf("%d fetches at once, want at most %d", got, fetchesAtOnce)
	}
	limits := seeing
	limits.TotalBytes = 20 << 10
	_, _, e := apply(t, t.Context(), p, chat, body, limits)
	if e == nil || e.Status != 413 || e.Code != openai.CodeTooLarge || !strings.Contains(e.Message, "raise --max-media-body-bytes") {
		t.Errorf("all media together: %+v", e)
	}
}

// FuzzAddress holds whatever is allowed to the hosts that are, as another
// reader of the same text would see them.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"https://images.example.com/a", "https://images.example.com\\@evil.net", "https://images.example.com:443@evil.net/", "http://a.blob.example.net/",
		"https://a.blob.example.net:99/", "data:image/png;base64,AAAA", "file:///etc/passwd", "https://[::1%25images.example.com]/", "HTTPS://IMAGES.EXAMPLE.COM#x"} {
		f.Add([]byte(s))
	}
	p := media(f, func(c *Config) { c.MediaHosts = []string{"images.example.com", "*.blob.example.net"} })
	f.Fuzz(func(t *testing.T, text []byte) {
		u, e := p.fetcher.allow("x", text)
		if e != nil {
			return
		}
		again, err := url.Parse(u.String())
		if err != nil || again.Host != u.Host || again.Scheme != "https" || again.User != nil {
			t.Fatalf("%q is asked as %s", text, u)
		}
		// The authority as a reader takes it who knows nothing of URLs: up to the
		// first of what may end it.
		_, rest, _ := strings.Cut(string(text), "://")
		if end := strings.IndexAny(rest, "/?#\\"); end >= 0 {
			rest = rest[:end]
		}
		name, _ := strings.CutSuffix(strings.ToLower(rest), ":443")
		name = strings.TrimSuffix(name, ":")
		if name != "images.example.com" && !strings.HasSuffix(name, ".blob.example.net") {
			t.Errorf("%q is allowed as %s", text, u)
		}
	})
}
