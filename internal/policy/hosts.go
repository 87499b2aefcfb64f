package policy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"code.dny.dev/ssrf"
)

// Hosts are those that an operator allows this server to talk to on behalf of
// strangers. The address that a name resolves to is judged when the connection
// is made, so that a name which resolves to something else the second time
// gains nothing, and again for each connection. Any goroutine may use it.
type Hosts struct {
	list   []host
	dialer *net.Dialer
}

// NewHosts allows names, written as HOST, HOST:PORT, *.DOMAIN or http://HOST,
// over https but for the last. They must have public addresses, or such in one
// of networks, written as 10.1.0.0/16. The error has every fault.
func NewHosts(names, networks []string) (*Hosts, error) {
	if err := HostFaults("", names, networks); err != nil {
		return nil, err
	}
	return newHosts(names, networks), nil
}

// HostFaults reports every fault of the arguments of NewHosts, which are given
// with flags whose names begin with flag.
func HostFaults(flag string, names, networks []string) error {
	var errs []error
	for _, n := range names {
		if _, err := parseHost(n); err != nil {
			errs = append(errs, fmt.Errorf("%shosts: %w", flag, err))
		}
	}
	for _, n := range networks {
		if _, err := netip.ParsePrefix(n); err != nil {
			errs = append(errs, fmt.Errorf("%snetworks: %q is not a network such as 10.1.0.0/16", flag, n))
		}
	}
	return errors.Join(errs...)
}

// newHosts takes what was checked.
func newHosts(names, networks []string) *Hosts {
	h := &Hosts{}
	for _, text := range names {
		one, _ := parseHost(text)
		h.list = append(h.list, one)
	}
	var four, six []netip.Prefix
	for _, text := range networks {
		if n, _ := netip.ParsePrefix(text); n.Addr().Is4() {
			four = append(four, n)
		} else {
			six = append(six, n)
		}
	}
	// The lists of addresses are IANA's registries of special purposes.
	guard := ssrf.New(ssrf.WithAnyPort(), ssrf.WithDeniedV4Prefixes(azureHost),
		ssrf.WithAllowedV4Prefixes(four...), ssrf.WithAllowedV6Prefixes(six...))
	h.dialer = &net.Dialer{Timeout: 5 * time.Second, Control: guard.Safe}
	return h
}

// none says that nothing is allowed.
func (h *Hosts) none() bool { return len(h.list) == 0 }

// Client returns a client that connects to allowed addresses only and follows
// no redirect. Its caller asks Judge first, and gives each request a deadline.
func (h *Hosts) Client() *http.Client {
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{ // without a proxy: it would resolve names for us
			DialContext: h.dialer.DialContext, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
			TLSHandshakeTimeout: 5 * time.Second, MaxIdleConnsPerHost: fetchesAtOnce, IdleConnTimeout: 30 * time.Second,
		},
	}
}

// Judge reads an address and says why it is not one to talk to, in words that
// follow its name; flag names the one that allows hosts. Whatever two parsers
// might read differently is refused; what is asked is written anew from what
// was judged.
func (h *Hosts) Judge(text, flag string) (u *url.URL, why string) {
	if len(text) > maxURLBytes {
		return nil, fmt.Sprintf("is longer than the %d bytes of an address", maxURLBytes)
	}
	for _, c := range []byte(text) {
		if c <= ' ' || c >= 0x7f || c == '\\' {
			return nil, "has characters that do not belong into an address"
		}
	}
	u, err := url.Parse(text)
	if err != nil || u.Opaque != "" || u.User != nil || u.Host == "" {
		return nil, "is not a plain address of the form https://HOST/PATH"
	}
	if !slices.ContainsFunc(h.list, func(one host) bool { return one.is(u) }) {
		return nil, "is not at one of the hosts that " + flag + " allows, over https"
	}
	u.Fragment, u.RawFragment = "", ""
	return u, ""
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

// Reason says what went wrong without telling a stranger of the network.
func Reason(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, ssrf.ErrProhibitedIP), errors.Is(err, ssrf.ErrProhibitedNetwork):
		return "its host has an address that is not public"
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return "its host does not answer in time"
	}
	return "its host does not answer properly"
}
