package caller

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// direct asks a handler without a network, so that time can be fake.
type direct struct {
	http.Handler
	changed func(body string) string
}

// RoundTrip implements http.RoundTripper.
func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	d.ServeHTTP(w, r)
	if text := w.Body.String(); d.changed != nil {
		w.Body.Reset()
		w.Body.WriteString(d.changed(text))
	}
	return w.Result(), nil
}

// running runs a verifier of p's tokens in a bubble of fake time.
func running(t *testing.T, p *provider, changed func(string) string, test func(*testing.T, *Entra)) {
	synctest.Test(t, func(t *testing.T) {
		d, err := Open(Config{}, quiet())
		if err != nil {
			t.Fatal(err)
		}
		e, err := NewEntra(EntraConfig{Tenant: tenant, Authority: p.URL, Audiences: []string{"api://infer"}}, d, quiet())
		if err != nil {
			t.Fatal(err)
		}
		e.client.Transport = direct{p.Config.Handler, changed}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- e.Run(ctx) }()
		synctest.Wait()
		test(t, e)
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A rotated key is found by the first token that names it, once a minute has
// passed since the last reading: nothing else makes Run look before the hour.
func TestRotation(t *testing.T) {
	p := newProvider(t)
	p.rotate(t, "one")
	running(t, p, nil, func(t *testing.T, e *Entra) {
		<-time.After(30 * time.Second)
		p.rotate(t, "two")
		began := time.Now()
		if _, err := e.Verify(t.Context(), p.token(t, "two", nil)); err == nil || time.Since(began) > 0 {
			t.Errorf("before the keys can be read: %v after %v", err, time.Since(began))
		}
		<-time.After(29 * time.Second) // the reading is a second away, for which it is worth to wait
		if _, err := e.Verify(t.Context(), p.token(t, "two", nil)); err != nil || time.Since(began) != 30*time.Second {
			t.Errorf("when the keys are read: %v after %v", err, time.Since(began))
		}
		if n := p.count(); n != 2 {
			t.Errorf("the keys were read %d times, want 2", n)
		}
		<-time.After(20 * time.Minute)
		p.rotate(t, "three")
		began = time.Now()
		if _, err := e.Verify(t.Context(), p.token(t, "three", nil)); err != nil || time.Since(began) > 0 {
			t.Errorf("long after the last reading: %v after %v", err, time.Since(began))
		}
	})
}

// An hour of tokens with made-up key ids costs the provider a reading a minute,
// also when it is down.
func TestAnHourOfMadeUpIds(t *testing.T) {
	for _, down := range []bool{false, true} {
		p := newProvider(t)
		p.rotate(t, "one")
		running(t, p, nil, func(t *testing.T, e *Entra) {
			p.mu.Lock()
			p.down = down
			p.mu.Unlock()
			end := time.Now().Add(time.Hour)
			for i := 0; time.Now().Before(end); i++ {
				head := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"alg":"RS256","kid":"%d"}`, i))
				if _, err := e.Verify(t.Context(), head+".e30.eA"); err == nil {
					t.Fatal("accepted")
				}
				<-time.After(time.Second)
			}
			// Failed readings come a little faster at first: 1, 2, 4 … 32 s.
			if n := p.count(); n < 55 || n > 67 {
				t.Errorf("down %t: the keys were read %d times in an hour, want about 60", down, n)
			}
			if down { // and the keys that were known stay
				if _, err := e.Verify(t.Context(), p.token(t, "one", nil)); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// A key of a kind that is not known here does not cost the others.
func TestStrangeKeyOfTheProvider(t *testing.T) {
	p := newProvider(t)
	p.rotate(t, "one")
	strange := func(body string) string {
		return strings.Replace(body, `{"keys":[`, `{"keys":[{"kty":"AKP","alg":"ML-DSA-44","kid":"two","pub":"AAAA"},`, 1)
	}
	running(t, p, strange, func(t *testing.T, e *Entra) {
		if _, err := e.Verify(t.Context(), p.token(t, "one", nil)); err != nil {
			t.Error(err)
		}
	})
}
