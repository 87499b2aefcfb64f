package caller

import (
	"context"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"github.com/hashicorp/golang-lru/v2"
)

// EntraConfig says whose tokens are accepted.
type EntraConfig struct {
	Tenant    string   // the directory's id; empty for none
	Audiences []string // accepted values of aud: the API's application id, its URI or both
	Roles     []string // an application role or scope that a token must have one of; empty for none
	Authority string   // of the cloud, such as https://login.microsoftonline.com
	Limits    Limits   // of each application that the files of keys do not name
}

// Faults reports every fault at once.
func (c EntraConfig) Faults() error {
	if c.Tenant == "" {
		if len(c.Audiences) > 0 {
			return errors.New("entra-audience: is of no use without --entra-tenant")
		}
		return nil
	}
	var errs []error
	if !isGUID(c.Tenant) {
		errs = append(errs, errors.New("entra-tenant: must be the directory (tenant) id, such as 00000000-0000-0000-0000-000000000000; common and organizations would accept every tenant's tokens"))
	}
	if len(c.Audiences) == 0 {
		errs = append(errs, errors.New("entra-audience: is needed with --entra-tenant; give the application id of this API, its URI (api://…), or both"))
	}
	if u, err := url.Parse(c.Authority); err != nil || u.Host == "" || (u.Scheme != "https" && !loopback(u)) {
		errs = append(errs, fmt.Errorf("entra-authority: %q is not an https address", c.Authority))
	}
	return errors.Join(errs...)
}

// loopback lets a test's provider do without TLS.
func loopback(u *url.URL) bool { return u.Scheme == "http" && u.Hostname() == "127.0.0.1" }

const (
	fetchTimeout = 10 * time.Second
	fetchMax     = 1 << 20
	// refreshEvery is how often the signing keys are read; Entra ID rolls them
	// without notice, and says that applications should look daily.
	refreshEvery = time.Hour
	// refreshGap is the least time between two readings, whatever tokens say.
	refreshGap = time.Minute
	// rotationWait is how long a token with a new key's id waits for a reading.
	rotationWait = 3 * time.Second
	maxToken     = 16 << 10
	clockSkew    = time.Minute
	maxApps      = 4096
)

// The reasons why a token is not accepted.
var (
	// ErrKeysUnknown: the provider's signing keys could not be read yet. The
	// caller is not at fault.
	ErrKeysUnknown = errors.New("the signing keys of Entra ID are not known yet")
	// ErrRole: the token is sound and lacks every role that is wanted.
	ErrRole = errors.New("the token has none of the wanted roles")
)

// Entra accepts access tokens of one tenant. Any goroutine may use it.
type Entra struct {
	cfg      EntraConfig
	log      *slog.Logger
	client   *http.Client
	verifier *oidc.IDTokenVerifier
	issuers  []string
	files    *Directory // gives applications a name and limits

	keys atomic.Pointer[jose.JSONWebKeySet] // nil until read

	wake    chan struct{} // has a mark once a token named a key that is not there
	mu      sync.Mutex
	read    time.Time     // when the keys were read last
	fetched chan struct{} // closed at the next reading, and replaced
	others  *lru.Cache[string, *Account]
}

// NewEntra returns a verifier that has read nothing yet: Run does that.
func NewEntra(cfg EntraConfig, files *Directory, log *slog.Logger) (*Entra, error) {
	others, err := lru.New[string, *Account](maxApps)
	if err != nil {
		return nil, fmt.Errorf("make the list of applications: %w", err)
	}
	tenant := strings.ToLower(cfg.Tenant)
	e := &Entra{cfg: cfg, log: log, files: files, others: others, wake: make(chan struct{}, 1), fetched: make(chan struct{}),
		client: &http.Client{Timeout: fetchTimeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		// Which of the two is in a token depends on how the API is registered,
		// not on where the token was asked for.
		issuers: []string{strings.TrimSuffix(cfg.Authority, "/") + "/" + tenant + "/v2.0", "https://sts.windows.net/" + tenant + "/"}}
	e.verifier = oidc.NewVerifier("", keySet{e}, &oidc.Config{
		SkipClientIDCheck: true, SkipIssuerCheck: true, // several are right: see check
		SupportedSigningAlgs: []string{oidc.RS256},
		Now:                  func() time.Time { return time.Now().Add(-clockSkew) },
	})
	return e, nil
}

// Run reads the signing keys at once, every hour, and when a token names one
// that is not there, but never twice a minute. It returns nil when ctx ends.
func (e *Entra) Run(ctx context.Context) error {
	backoff := time.Second
	for {
		began := time.Now()
		wait := refreshEvery
		if err := e.fetch(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			e.log.Warn("the signing keys of Entra ID could not be read; requests with API keys are not affected", "err", err, "retry_seconds", backoff.Seconds())
			wait, backoff = backoff, min(2*backoff, refreshGap)
		} else {
			backoff = time.Second
		}
		if !e.rest(ctx, began, wait) {
			return nil
		}
	}
}

// rest waits until it is time to read again. It returns false when ctx has
// ended.
func (e *Entra) rest(ctx context.Context, began time.Time, wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	wake := e.wake
	if wait < refreshGap {
		wake = nil // it is soon anyway
	}
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	case <-wake:
	}
	timer.Reset(max(refreshGap-time.Since(began), 0))
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// fetch reads where the keys are, and then the keys.
func (e *Entra) fetch(ctx context.Context) error {
	var where struct {
		Keys string `json:"jwks_uri"`
	}
	base := strings.TrimSuffix(e.cfg.Authority, "/") + "/" + e.cfg.Tenant
	if err := e.get(ctx, base+"/v2.0/.well-known/openid-configuration", &where); err != nil {
		return err
	}
	if u, err := url.Parse(where.Keys); err != nil || (u.Scheme != "https" && !loopback(u)) {
		return errors.New("the provider's document names no https address of keys")
	}
	var shown struct {
		Keys []jsontext.Value `json:"keys"`
	}
	if err := e.get(ctx, where.Keys, &shown); err != nil {
		return err
	}
	// One by one: a key of a kind that is not known here must not cost the rest.
	var set jose.JSONWebKeySet
	for _, text := range shown.Keys {
		var k jose.JSONWebKey
		if err := k.UnmarshalJSON(text); err == nil {
			set.Keys = append(set.Keys, k)
		}
	}
	if len(set.Keys) == 0 {
		return errors.New("the provider shows no key that can be used")
	}
	e.keys.Store(&set)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.read = time.Now()
	close(e.fetched)
	e.fetched = make(chan struct{})
	return nil
}

func (e *Entra) get(ctx context.Context, address string, v any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	answer, err := e.client.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: HTTP %d", address, answer.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, fetchMax))
	if err != nil {
		return fmt.Errorf("GET %s: %w", address, err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("GET %s: %w", address, err)
	}
	return nil
}

// keySet implements oidc.KeySet over the keys that were read.
type keySet struct{ e *Entra }

// errNoKey: no key of this id, and reading again has not found one.
var errNoKey = errors.New("the token is signed by a key that the provider does not show")

// VerifySignature implements oidc.KeySet.
func (s keySet) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	signed, err := parseToken(token)
	if err != nil {
		return nil, err
	}
	k, err := s.e.signer(ctx, token)
	if err != nil {
		return nil, err
	}
	payload, err := signed.Verify(k)
	if err != nil {
		return nil, errors.New("the token's signature is wrong")
	}
	return payload, nil
}

func parseToken(token string) (*jose.JSONWebSignature, error) {
	signed, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		return nil, errors.New("the token is malformed or not signed by RS256")
	}
	return signed, nil
}

// signer returns the key that a token says it is signed by.
func (e *Entra) signer(ctx context.Context, token string) (*jose.JSONWebKey, error) {
	signed, err := parseToken(token)
	if err != nil {
		return nil, err
	}
	return e.key(ctx, signed.Signatures[0].Header.KeyID)
}

// key returns the key with this id. One that is not there may be new: the next
// reading is waited for, a little.
func (e *Entra) key(ctx context.Context, id string) (*jose.JSONWebKey, error) {
	e.mu.Lock()
	fetched, soon := e.fetched, time.Since(e.read) > refreshGap-rotationWait
	e.mu.Unlock()
	find := func() *jose.JSONWebKey {
		set := e.keys.Load()
		if set == nil || id == "" {
			return nil
		}
		for i, k := range set.Keys {
			if k.KeyID == id && k.Use != "enc" {
				return &set.Keys[i]
			}
		}
		return nil
	}
	if k := find(); k != nil {
		return k, nil
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
	if soon {
		timer := time.NewTimer(rotationWait)
		defer timer.Stop()
		select {
		case <-fetched:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if k := find(); k != nil {
		return k, nil
	}
	if e.keys.Load() == nil {
		return nil, ErrKeysUnknown
	}
	return nil, errNoKey
}

// claims is what is read of a token.
type claims struct {
	Tenant string   `json:"tid"`
	App    string   `json:"appid"` // of version 1
	Azp    string   `json:"azp"`   // of version 2
	Object string   `json:"oid"`
	Roles  []string `json:"roles"`
	Scopes string   `json:"scp"`
}

// LooksLikeToken says whether a bearer is a token and not a key: three parts,
// of which the first is a JSON object in base64.
func LooksLikeToken(bearer string) bool {
	return strings.HasPrefix(bearer, "eyJ") && strings.Count(bearer, ".") == 2
}

// Verify returns the account of a token's application. Its error is
// ErrKeysUnknown, ErrRole, or says what is wrong with the token, without a part
// of it.
func (e *Entra) Verify(ctx context.Context, token string) (*Account, error) {
	if len(token) > maxToken {
		return nil, fmt.Errorf("the token has more than %d bytes", maxToken)
	}
	// The verifier keeps no error of its set of keys to look at.
	if _, err := e.signer(ctx, token); errors.Is(err, ErrKeysUnknown) || errors.Is(err, errNoKey) {
		return nil, err
	}
	t, err := e.verifier.Verify(ctx, token)
	var expired *oidc.TokenExpiredError
	switch {
	case errors.As(err, &expired):
		return nil, errors.New("the token has expired; get a new one")
	case err != nil:
		return nil, errors.New("the token is not a valid one: " + reason(err))
	}
	var c claims
	if err := t.Claims(&c); err != nil {
		return nil, errors.New("the token's claims cannot be read")
	}
	if err := e.check(t, c); err != nil {
		return nil, err
	}
	return e.account(c), nil
}

// reason keeps what a token holds out of an error.
func reason(err error) string {
	for _, known := range []string{"signature", "not valid before", "malformed"} {
		if strings.Contains(err.Error(), known) {
			return known
		}
	}
	return "it cannot be verified"
}

func (e *Entra) check(t *oidc.IDToken, c claims) error {
	switch {
	case !slices.Contains(e.issuers, t.Issuer) || !strings.EqualFold(c.Tenant, e.cfg.Tenant):
		return errors.New("the token is of another tenant")
	case !slices.ContainsFunc(t.Audience, func(a string) bool { return slices.Contains(e.cfg.Audiences, a) }):
		return errors.New("the token is for another API; ask for one with the scope of this one, such as api://…/.default")
	case !isGUID(c.app()):
		return errors.New("the token names no application")
	case len(e.cfg.Roles) == 0:
		return nil
	}
	for _, role := range append(strings.Fields(c.Scopes), c.Roles...) {
		if slices.Contains(e.cfg.Roles, role) {
			return nil
		}
	}
	return ErrRole
}

func (c claims) app() string {
	if c.Azp != "" {
		return c.Azp
	}
	return c.App
}

// Named returns the account by the name that an application without a key has,
// nil for another name.
func (e *Entra) Named(name string) *Account {
	app, ok := strings.CutPrefix(name, "entra-")
	if !ok {
		return nil
	}
	return e.account(claims{App: app})
}

// account is the one that the files give the application, or one of its own
// with the limits for all others.
func (e *Entra) account(c claims) *Account {
	app := strings.ToLower(c.app())
	if e.files != nil {
		if a, ok := e.files.App(app); ok {
			return a
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if a, ok := e.others.Get(app); ok {
		return a
	}
	a := newAccount("entra-"+app, "entra", Interactive, e.cfg.Limits, time.Now())
	e.others.Add(app, a)
	return a
}
