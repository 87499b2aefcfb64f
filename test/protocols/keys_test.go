package protocols

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json/v2"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"infer/internal/caller"
	"infer/internal/serve"
)

const (
	tenant = "11111111-2222-3333-4444-555555555555"
	app    = "aaaaaaaa-0000-0000-0000-00000000000a"
)

// provider returns the address of an OpenID provider and what signs its tokens.
func provider(t *testing.T) (authority string, sign func(age time.Duration, role string) string) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	p := httptest.NewServer(mux)
	t.Cleanup(p.Close)
	mux.HandleFunc("GET /"+tenant+"/v2.0/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.MarshalWrite(w, map[string]string{"jwks_uri": p.URL + "/keys"}) // the client may have left
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.MarshalWrite(w, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &private.PublicKey, KeyID: "one", Use: "sig"}}})
	})
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: private}, (&jose.SignerOptions{}).WithHeader("kid", "one"))
	if err != nil {
		t.Fatal(err)
	}
	return p.URL, func(age time.Duration, role string) string {
		born := time.Now().Add(-age)
		token, err := jwt.Signed(signer).Claims(map[string]any{"iss": p.URL + "/" + tenant + "/v2.0", "aud": "api://infer", "tid": tenant, "azp": app,
			"iat": born.Unix(), "nbf": born.Unix(), "exp": born.Add(time.Hour).Unix(), "roles": []string{role}}).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
}

// callers knows the keys of the script and the tokens of a provider, and runs
// until the test ends.
func callers(t *testing.T) (*serve.Callers, map[string]string) {
	t.Helper()
	secrets, lines := map[string]string{}, ""
	for name, terms := range map[string]string{"ann": "", "elsewhere": "::models=other", "told": "::rpm=1,tpm=9000", "small": "::tpm=100", "busy1": "::rpm=20", "busy2": "::rpm=20"} {
		secrets[name] = rand.Text()
		lines += name + ":" + secrets[name] + terms + "\n"
	}
	authority, sign := provider(t)
	secrets["token"], secrets["expired"], secrets["roleless"] = sign(0, "infer.use"), sign(2*time.Hour, "infer.use"), sign(0, "other")
	log := slog.New(slog.DiscardHandler)
	keys, err := caller.Open(caller.Config{Keys: lines}, log)
	if err != nil {
		t.Fatal(err)
	}
	entra, err := caller.NewEntra(caller.EntraConfig{Tenant: tenant, Audiences: []string{"api://infer"}, Roles: []string{"infer.use"}, Authority: authority}, keys, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- entra.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return &serve.Callers{Keys: keys, Entra: entra}, secrets
}

// Official clients understand every no, and obey when they are told to wait.
func TestKeysWithOfficialClients(t *testing.T) {
	c, secrets := callers(t)
	text, err := json.Marshal(secrets)
	if err != nil {
		t.Fatal(err)
	}
	runs(t, "keys.py", start(t, c), string(text))
}
