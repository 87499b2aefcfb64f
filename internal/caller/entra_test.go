package caller

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json/v2"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	tenant = "11111111-2222-3333-4444-555555555555"
	app    = "aaaaaaaa-0000-0000-0000-00000000000a"
)

// provider is an OpenID provider that signs, rotates and counts.
type provider struct {
	*httptest.Server
	mu    sync.Mutex
	keys  map[string]any // by id
	reads int
	down  bool
}

func newProvider(t *testing.T) *provider {
	t.Helper()
	p := &provider{keys: map[string]any{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /"+tenant+"/v2.0/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.MarshalWrite(w, map[string]string{"issuer": p.URL + "/" + tenant + "/v2.0", "jwks_uri": p.URL + "/keys"})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.reads++
		if p.down {
			w.WriteHeader(503)
			return
		}
		var set jose.JSONWebKeySet
		for id, k := range p.keys {
			public := any(nil)
			switch k := k.(type) {
			case *rsa.PrivateKey:
				public = &k.PublicKey
			case *ecdsa.PrivateKey:
				public = &k.PublicKey
			}
			set.Keys = append(set.Keys, jose.JSONWebKey{Key: public, KeyID: id, Use: "sig"})
		}
		_ = json.MarshalWrite(w, set)
	})
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Close)
	return p
}

func (p *provider) rotate(t *testing.T, id string) {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = map[string]any{id: k}
}

func (p *provider) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.reads
}

// sign makes a token; what is nil in changed is left out of the claims.
func (p *provider) sign(t *testing.T, alg jose.SignatureAlgorithm, k any, id string, changed map[string]any) string {
	t.Helper()
	c := map[string]any{"iss": p.URL + "/" + tenant + "/v2.0", "aud": "api://infer", "tid": tenant, "azp": app, "oid": "o", "ver": "2.0",
		"iat": time.Now().Unix(), "nbf": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(), "roles": []string{"infer.use"}}
	maps.Copy(c, changed)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	options := (&jose.SignerOptions{}).WithType("JWT")
	if id != "" {
		options.WithHeader("kid", id)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: k}, options)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(c).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func (p *provider) token(t *testing.T, id string, changed map[string]any) string {
	t.Helper()
	p.mu.Lock()
	k := p.keys[id]
	p.mu.Unlock()
	return p.sign(t, jose.RS256, k, id, changed)
}

// accepting returns a verifier of p's tokens that runs until the test ends.
func accepting(t *testing.T, p *provider, cfg EntraConfig, keys string) *Entra {
	t.Helper()
	cfg.Tenant, cfg.Authority = tenant, p.URL
	if cfg.Audiences == nil {
		cfg.Audiences = []string{"api://infer", "cccccccc-0000-0000-0000-00000000000c"}
	}
	if err := cfg.Faults(); err != nil {
		t.Fatal(err)
	}
	d, err := Open(Config{Keys: keys}, quiet())
	if err != nil {
		t.Fatal(err)
	}
	e, err := NewEntra(cfg, d, quiet())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- e.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return e
}

func TestTokens(t *testing.T) {
	p := newProvider(t)
	p.rotate(t, "one")
	e := accepting(t, p, EntraConfig{Limits: Limits{RequestsPerMinute: 5}}, "known:entra="+strings.ToUpper(app)+":batch:rpm=9")
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	real := p.keys["one"].(*rsa.PrivateKey)
	p.mu.Unlock()
	const stranger = "bbbbbbbb-0000-0000-0000-00000000000b"
	for _, tt := range []struct {
		name, token, want, says string
	}{
		{"sound", p.token(t, "one", nil), "known", ""},
		{"of version 1", p.token(t, "one", map[string]any{"iss": "https://sts.windows.net/" + tenant + "/", "azp": nil, "appid": app, "ver": "1.0"}), "known", ""},
		{"for the id of the API", p.token(t, "one", map[string]any{"aud": "cccccccc-0000-0000-0000-00000000000c"}), "known", ""},
		{"of another application", p.token(t, "one", map[string]any{"azp": stranger}), "entra-" + stranger, ""},
		{"just expired", p.token(t, "one", map[string]any{"exp": time.Now().Add(-20 * time.Second).Unix()}), "known", ""},
		{"expired", p.token(t, "one", map[string]any{"exp": time.Now().Add(-5 * time.Minute).Unix()}), "", "expired"},
		{"not yet valid", p.token(t, "one", map[string]any{"nbf": time.Now().Add(time.Hour).Unix()}), "", "not a valid one"},
		{"for another API", p.token(t, "one", map[string]any{"aud": "api://other"}), "", "another API"},
		{"without an audience", p.token(t, "one", map[string]any{"aud": nil}), "", "another API"},
		{"of another tenant's issuer", p.token(t, "one", map[string]any{"iss": "https://sts.windows.net/" + app + "/"}), "", "another tenant"},
		{"of another tenant", p.token(t, "one", map[string]any{"tid": app}), "", "another tenant"},
		{"without a tenant", p.token(t, "one", map[string]any{"tid": nil}), "", "another tenant"},
		{"without an application", p.token(t, "one", map[string]any{"azp": nil}), "", "names no application"},
		{"signed by another", p.sign(t, jose.RS256, other, "one", nil), "", "signature"},
		{"without a key's id", p.sign(t, jose.RS256, real, "", nil), "", "signed by a key"},
		{"by RS512", p.sign(t, jose.RS512, real, "one", nil), "", "not a valid one"},
		{"by ES256", p.sign(t, jose.ES256, curve, "one", nil), "", "not a valid one"},
		{"by HS256 with the public key", p.sign(t, jose.HS256, real.N.Bytes(), "one", nil), "", "not a valid one"},
		{"by none", "eyJhbGciOiJub25lIn0." + strings.Split(p.token(t, "one", nil), ".")[1] + ".", "", "not a valid one"},
		{"nonsense", "eyJ.x.y", "", "not a valid one"},
		{"too long", "eyJ" + strings.Repeat("x", maxToken) + ".a.b", "", "more than"},
	} {
		a, err := e.Verify(t.Context(), tt.token)
		switch {
		case tt.want != "" && (err != nil || a.Name != tt.want):
			t.Errorf("%s: %v, %v; want %s", tt.name, a, err, tt.want)
		case tt.want == "" && (err == nil || !strings.Contains(err.Error(), tt.says)):
			t.Errorf("%s: %v, want %q", tt.name, err, tt.says)
		case err != nil && strings.Contains(err.Error(), "eyJ"):
			t.Errorf("%s: a part of the token is in %q", tt.name, err)
		}
	}
	known, _ := e.Verify(t.Context(), p.token(t, "one", nil))
	if class, l := known.Terms(); class != Batch || l.RequestsPerMinute != 9 || known.Label != "known" {
		t.Errorf("%v %v %s", class, l, known.Label)
	}
	one, _ := e.Verify(t.Context(), p.token(t, "one", map[string]any{"azp": stranger}))
	two, _ := e.Verify(t.Context(), p.token(t, "one", map[string]any{"azp": stranger}))
	if _, l := one.Terms(); one != two || l.RequestsPerMinute != 5 || one.Label != "entra" {
		t.Errorf("an application's account is not its own: %v %v", one, two)
	}
	if n := p.count(); n != 1 {
		t.Errorf("the keys were read %d times, want once", n)
	}
}

func TestRoles(t *testing.T) {
	p := newProvider(t)
	p.rotate(t, "one")
	e := accepting(t, p, EntraConfig{Roles: []string{"infer.use", "Models.Read"}}, "")
	for _, tt := range []struct {
		changed map[string]any
		err     error
	}{
		{nil, nil},
		{map[string]any{"roles": nil, "scp": "x Models.Read"}, nil},
		{map[string]any{"roles": []string{"other"}}, ErrRole},
		{map[string]any{"roles": nil}, ErrRole},
	} {
		if _, err := e.Verify(t.Context(), p.token(t, "one", tt.changed)); !errors.Is(err, tt.err) {
			t.Errorf("%v: %v, want %v", tt.changed, err, tt.err)
		}
	}
}

// A provider that cannot be reached is not the caller's fault, and is found
// again without a restart.
func TestProviderComesLate(t *testing.T) {
	p := newProvider(t)
	p.rotate(t, "one")
	p.mu.Lock()
	p.down = true
	p.mu.Unlock()
	e := accepting(t, p, EntraConfig{}, "")
	token := p.token(t, "one", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := e.Verify(ctx, token); !errors.Is(err, ErrKeysUnknown) {
		t.Errorf("%v, want ErrKeysUnknown", err)
	}
	p.mu.Lock()
	p.down = false
	p.mu.Unlock()
	for end := time.Now().Add(30 * time.Second); ; {
		_, err := e.Verify(t.Context(), token)
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// Tokens with unknown key ids cannot make us ask the provider: for a minute
// after a reading they are refused at once.
func TestUnknownIdsDoNotHammer(t *testing.T) {
	p := newProvider(t)
	p.rotate(t, "one")
	e := accepting(t, p, EntraConfig{}, "")
	if _, err := e.Verify(t.Context(), p.token(t, "one", nil)); err != nil {
		t.Fatal(err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	for range 200 {
		if _, err := e.Verify(t.Context(), p.sign(t, jose.RS256, other, rand.Text(), nil)); err == nil {
			t.Fatal("accepted")
		}
	}
	if n := p.count(); n != 1 {
		t.Errorf("the keys were read %d times, want once", n)
	}
	if took := time.Since(began); took > 200*rotationWait/2 {
		t.Errorf("each waited for a reading that could not come: %v", took)
	}
	// A minute later a rotated key is found with the first token that names it.
	p.rotate(t, "two")
	e.mu.Lock()
	e.read = e.read.Add(-refreshGap)
	e.mu.Unlock()
	if err := e.fetch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := e.Verify(t.Context(), p.token(t, "two", nil)); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
}

func TestEntraFaults(t *testing.T) {
	good := EntraConfig{Tenant: tenant, Audiences: []string{"x"}, Authority: "https://login.microsoftonline.com"}
	if err := errors.Join(good.Faults(), EntraConfig{}.Faults()); err != nil {
		t.Error(err)
	}
	for says, c := range map[string]EntraConfig{
		"accept every tenant's": {Tenant: "common", Audiences: []string{"x"}, Authority: good.Authority},
		"is needed":             {Tenant: tenant, Authority: good.Authority},
		"no use without":        {Audiences: []string{"x"}},
		"not an https address":  {Tenant: tenant, Audiences: []string{"x"}, Authority: "http://login.example"},
	} {
		if err := c.Faults(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", c, err, says)
		}
	}
}
