package jobs

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	webhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"infer/internal/openai"
	"infer/internal/store"
)

const testSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// told is one webhook that came.
type told struct {
	id, text string
	at       time.Time
}

// receiver is a real server, outside of any fake clock.
type receiver struct {
	t      *testing.T
	srv    *httptest.Server
	answer func(n int, w http.ResponseWriter) // to the nth, from 1
	fresh  bool                               // the clock is real, so the timestamp must be of now

	mu  sync.Mutex
	got []told
}

func newReceiver(t *testing.T, answer func(n int, w http.ResponseWriter)) *receiver {
	v := &receiver{t: t, answer: answer}
	v.srv = httptest.NewServer(v)
	v.srv.Config.SetKeepAlivesEnabled(false) // an open connection would hold a fake clock
	t.Cleanup(v.srv.Close)
	return v
}

func (v *receiver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		v.t.Errorf("read webhook: %v", err)
	}
	verifier, err := webhooks.NewWebhook(testSecret)
	if err != nil {
		v.t.Error(err)
		return
	}
	verify := verifier.VerifyIgnoringTimestamp
	if v.fresh {
		verify = verifier.Verify
	}
	if err := verify(body, r.Header); err != nil || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
		v.t.Errorf("%s with %v: %v", r.Method, r.Header, err)
	}
	seconds, _ := strconv.ParseInt(r.Header.Get(webhooks.HeaderWebhookTimestamp), 10, 64) // was verified
	v.mu.Lock()
	v.got = append(v.got, told{r.Header.Get(webhooks.HeaderWebhookID), string(body), time.Unix(seconds, 0)})
	n := len(v.got)
	v.mu.Unlock()
	v.answer(n, w)
}

func (v *receiver) all() []told {
	v.mu.Lock()
	defer v.mu.Unlock()
	return append([]told(nil), v.got...)
}

// config allows the receiver, on loopback.
func (v *receiver) config() Config {
	cfg := config()
	cfg.ResultTTL = 72 * time.Hour
	cfg.WebhookHosts, cfg.WebhookNetworks, cfg.WebhookSecret = []string{v.srv.URL}, []string{"127.0.0.0/8"}, testSecret
	return cfg
}

func fine(int, http.ResponseWriter) {}

// submit makes a job that is to be told to url.
func (r *replica) submit(url string) (path, id string) {
	r.t.Helper()
	o := r.must("POST", "/v1/jobs", `{"url":"/v1/completions","body":{"prompt":"p"},"webhook":{"url":"`+url+`"}}`)
	id, _ = o["id"].(string)
	return "/v1/jobs/" + id, id
}

func hookOf(o map[string]any) map[string]any {
	h, _ := o["webhook"].(map[string]any)
	return h
}

// attempts compares the metric of webhooks.
func (r *replica) attempts(delivered, retried, givenUp int) {
	r.t.Helper()
	want := fmt.Sprintf(`# HELP infer_webhook_attempts_total Attempts to tell the end of a job, by outcome; retried ones are followed by another.
# TYPE infer_webhook_attempts_total counter
infer_webhook_attempts_total{outcome="delivered"} %d
infer_webhook_attempts_total{outcome="given_up"} %d
infer_webhook_attempts_total{outcome="retried"} %d
`, delivered, givenUp, retried)
	if err := testutil.CollectAndCompare(r.s, strings.NewReader(want), "infer_webhook_attempts_total"); err != nil {
		r.t.Error(err)
	}
}

func settled(o map[string]any) bool { return hookOf(o)["status"] != hookPending }

// A receiver gets the job as a GET would have it, signed as the library that
// receivers use checks it, within its bound of time.
func TestWebhookIsSigned(t *testing.T) {
	v := newReceiver(t, fine)
	v.fresh = true
	e := newEngine()
	e.took = func() time.Duration { return 0 }
	r := newReplicaOf(t, v.config(), store.NewMemory(1<<20), "", e.chain)
	defer r.end()
	path, id := r.submit(v.srv.URL + "/done?of=mine")
	o := r.must("GET", path, "")
	for limit := time.Now().Add(time.Minute); !settled(o) && time.Now().Before(limit); o = r.must("GET", path, "") {
		<-time.After(100 * time.Millisecond)
	}
	if h := hookOf(o); h["status"] != hookDelivered || h["attempts"] != 1.0 || h["url"] != v.srv.URL+"/done?of=mine" {
		t.Errorf("webhook is %v", h)
	}
	got := v.all()
	if len(got) != 1 || got[0].id != id {
		t.Fatalf("told %v, want once and %s", got, id)
	}
	p := object(t, got[0].text)
	if _, has := p["webhook"]; has || p["id"] != id || p["object"] != "job" || p["status"] != "succeeded" || !strings.Contains(got[0].text, `"re: p"`) {
		t.Errorf("told %s", got[0].text)
	}
}

// A receiver that breaks connections, then refuses, is asked again, later each
// time, with the same message under the same id.
func TestWebhookWaitsForItsReceiver(t *testing.T) {
	v := newReceiver(t, func(n int, w http.ResponseWriter) {
		switch {
		case n <= 3:
			c, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_ = c.Close()
		case n == 4:
			w.Header().Set("Retry-After", "600")
			w.WriteHeader(503)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := newReplicaOf(t, v.config(), store.NewMemory(1<<20), "", newEngine().chain)
		defer r.end()
		path, id := r.submit(v.srv.URL)
		o := r.until(path, settled)
		if h := hookOf(o); h["status"] != hookDelivered || h["attempts"] != 5.0 || h["error"] != nil {
			t.Errorf("webhook is %v", h)
		}
		r.attempts(1, 4, 0)
		got := v.all()
		if len(got) != 5 {
			t.Fatalf("told %d times, want 5", len(got))
		}
		for i, least := range []time.Duration{4 * time.Second, 8 * time.Second, 16 * time.Second, 600 * time.Second} {
			a, b := got[i], got[i+1]
			if pause := b.at.Sub(a.at); pause < least-time.Second || pause > 2*least+10*time.Second {
				t.Errorf("pause %d is %v, want about %v", i, pause, least)
			}
			if a.id != id || a.id != b.id || a.text != b.text {
				t.Errorf("attempt %d is another message: %v, %v", i+1, a, b)
			}
		}
		if left, _ := r.s.store.List(t.Context(), todoPrefix, "", 10); len(left) > 0 {
			t.Errorf("reminders are left: %q", left)
		}
	})
}

// A process that is killed just when the job has ended has told nobody; the
// next one does. One that is killed just when it has told, tells again.
func TestWebhookSurvivesKills(t *testing.T) {
	for name, least := range map[string]int{"before it is told": 1, "before that is written": 2, "after its reminder was moved": 1} {
		t.Run(name, func(t *testing.T) {
			v := newReceiver(t, fine)
			synctest.Test(t, func(t *testing.T) {
				shared := store.NewMemory(1 << 20)
				killed := make(chan struct{})
				m := &mortal{Store: shared, kill: sync.OnceFunc(func() { close(killed) })}
				var key string
				m.die = func() bool {
					it, err := shared.Get(context.Background(), key)
					if strings.HasPrefix(name, "after") {
						if todo, _ := shared.List(context.Background(), todoTask, "", 1); len(todo) > 0 {
							return false
						}
					}
					return key != "" && err == nil && strings.Contains(string(it.Value), `"state":"ended"`) && len(v.all()) == least-1
				}
				first := newReplicaOf(t, v.config(), m, "", newEngine().chain)
				path, id := first.submit(v.srv.URL)
				m.mu.Lock()
				key = taskKey(kindJob, "", id)
				m.mu.Unlock()
				<-killed
				if got := v.all(); len(got) != least-1 {
					t.Fatalf("killed after it was told %d times, want %d", len(got), least-1)
				}
				second := newReplicaOf(t, v.config(), shared, "", newEngine().chain)
				o := second.until(path, settled)
				if h := hookOf(o); h["status"] != hookDelivered {
					t.Errorf("webhook is %v", h)
				}
				first.end()
				second.end()
				got := v.all()
				if len(got) != least {
					t.Fatalf("told %d times, want %d", len(got), least)
				}
				for _, g := range got {
					if g.id != id || g.text != got[0].text || !strings.Contains(g.text, `"succeeded"`) {
						t.Errorf("told %v", g)
					}
				}
			})
		})
	}
}

// A delivery ends after hours, or at once where nobody is.
func TestWebhookIsGivenUp(t *testing.T) {
	for _, c := range []struct {
		status    int
		reason    string
		from, to  time.Duration
		mostTries float64
	}{
		{500, "its host answers with status 500", hookFor - 2*hookMost, hookFor + time.Minute, 40},
		{302, "its host redirects, which is not followed; name the final address", hookFor - 2*hookMost, hookFor + time.Minute, 40},
		{410, "its host answers with status 410: nobody is there any more", 0, time.Minute, 1},
	} {
		t.Run(fmt.Sprint(c.status), func(t *testing.T) {
			other := newReceiver(t, fine)
			v := newReceiver(t, func(_ int, w http.ResponseWriter) {
				w.Header().Set("Location", other.srv.URL)
				w.WriteHeader(c.status)
			})
			synctest.Test(t, func(t *testing.T) {
				cfg := v.config()
				cfg.WebhookHosts = append(cfg.WebhookHosts, other.srv.URL)
				r := newReplicaOf(t, cfg, store.NewMemory(1<<20), "", newEngine().chain)
				defer r.end()
				began := time.Now()
				path, _ := r.submit(v.srv.URL)
				for !settled(r.must("GET", path, "")) && time.Since(began) < 2*hookFor {
					<-time.After(time.Minute)
				}
				took, h := time.Since(began), hookOf(r.must("GET", path, ""))
				if h["status"] != hookFailed || h["error"] != c.reason || took < c.from || took > c.to+time.Minute {
					t.Errorf("after %v the webhook is %v", took, h)
				}
				n, _ := h["attempts"].(float64)
				if n < 1 || n > c.mostTries || int(n) != len(v.all()) {
					t.Errorf("%v attempts, %d came", n, len(v.all()))
				}
				r.attempts(0, int(n)-1, 1)
				if len(other.all()) > 0 {
					t.Error("a redirect was followed")
				}
				if left, _ := r.s.store.List(t.Context(), todoPrefix, "", 10); len(left) > 0 {
					t.Errorf("reminders are left: %q", left)
				}
			})
		})
	}
}

// A cancellation is an end, too.
func TestWebhookOfACancelledJob(t *testing.T) {
	v := newReceiver(t, fine)
	synctest.Test(t, func(t *testing.T) {
		e := newEngine()
		e.took = func() time.Duration { return time.Hour }
		r := newReplicaOf(t, v.config(), store.NewMemory(1<<20), "", e.chain)
		defer r.end()
		path, _ := r.submit(v.srv.URL)
		<-time.After(time.Minute)
		r.must("POST", path+"/cancel", "")
		r.until(path, settled)
		if got := v.all(); len(got) != 1 || !strings.Contains(got[0].text, `"status":"cancelled"`) {
			t.Errorf("told %v", got)
		}
	})
}

// An allowed name with an address inside is not asked.
func TestWebhookToAPrivateAddress(t *testing.T) {
	v := newReceiver(t, fine)
	synctest.Test(t, func(t *testing.T) {
		cfg := v.config()
		cfg.WebhookNetworks = nil
		r := newReplicaOf(t, cfg, store.NewMemory(1<<20), "", newEngine().chain)
		defer r.end()
		path, _ := r.submit(v.srv.URL)
		o := r.until(path, func(o map[string]any) bool { return hookOf(o)["error"] != nil })
		if h := hookOf(o); h["error"] != "its host has an address that is not public" {
			t.Errorf("webhook is %v", h)
		}
		if got := v.all(); len(got) > 0 {
			t.Errorf("told %v", got)
		}
	})
}

func TestWebhooksThatAreRefused(t *testing.T) {
	v := newReceiver(t, fine)
	at, err := netip.ParseAddrPort(strings.TrimPrefix(v.srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	without := newReplica(t, store.NewMemory(1<<20), "", newEngine().chain)
	defer without.end()
	with := newReplicaOf(t, v.config(), store.NewMemory(1<<20), "", newEngine().chain)
	defer with.end()
	for _, c := range []struct {
		r                          *replica
		hook, param, code, message string
	}{
		{without, `{"url":"https://example.com/x"}`, "webhook.url", openai.CodeWebhook, "unless its host is named with --webhook-hosts"},
		{with, `{"url":"https://example.com/x"}`, "webhook.url", openai.CodeWebhook, "is not at one of the hosts that --webhook-hosts allows"},
		{with, `{"url":"https://` + at.String() + `/x"}`, "webhook.url", openai.CodeWebhook, "is not at one of the hosts"},
		{with, `{"url":"http://user@` + at.String() + `/x"}`, "webhook.url", openai.CodeWebhook, "is not a plain address"},
		{with, `{"url":"http://169.254.169.254/metadata"}`, "webhook.url", openai.CodeWebhook, "is not at one of the hosts"},
		{with, `{"url":"ftp://` + at.String() + `"}`, "webhook.url", openai.CodeWebhook, "is not at one of the hosts"},
		{with, `{}`, "webhook.url", openai.CodeMissingField, "webhook.url is required"},
		{with, `{"url":"` + v.srv.URL + "/" + strings.Repeat("x", maxHookBytes) + `"}`, "webhook.url", openai.CodeInvalidValue, "webhook.url is longer than 2048 bytes"},
		{with, `{"url":5}`, "webhook.url", openai.CodeInvalidValue, "webhook.url has the wrong type"},
		{with, `{"url":"` + v.srv.URL + `","secret":"x"}`, "webhook.secret", openai.CodeUnsupported, "webhook.secret is not supported"},
	} {
		status, text := c.r.do("POST", "/v1/jobs", `{"url":"/v1/completions","body":{"prompt":"p"},"webhook":`+c.hook+`}`)
		o, _ := object(t, text)["error"].(map[string]any)
		message, _ := o["message"].(string)
		if status != 400 || o["param"] != c.param || o["code"] != c.code || !strings.Contains(message, c.message) {
			t.Errorf("%s: %d %s", c.hook, status, text)
		}
	}
}

func TestFaultsOfWebhooks(t *testing.T) {
	for _, c := range []struct {
		hosts, networks []string
		secret          Secret
		want            string
	}{
		{nil, nil, "", ""},
		{[]string{"a.example"}, nil, testSecret, ""},
		{[]string{"a.example"}, nil, "", "webhook-hosts: needs a secret to sign with in INFER_WEBHOOK_SECRET; make one with: openssl rand -base64 32"},
		{[]string{"a.example"}, nil, "c2hvcnQ=", "webhook-hosts: INFER_WEBHOOK_SECRET is not the base64 of 24 to 64 bytes; make one with: openssl rand -base64 32"},
		{[]string{"a/b"}, []string{"10"}, testSecret, "webhook-hosts: \"a/b\" is not a host; write HOST, HOST:PORT, *.DOMAIN or http://HOST\nwebhook-networks: \"10\" is not a network such as 10.1.0.0/16"},
	} {
		cfg := config()
		cfg.WebhookHosts, cfg.WebhookNetworks, cfg.WebhookSecret = c.hosts, c.networks, c.secret
		got := ""
		if err := cfg.Faults(); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%v: %q, want %q", c.hosts, got, c.want)
		}
		if text := fmt.Sprintf("%v %+v", cfg, cfg); c.secret != "" && strings.Contains(text, string(c.secret)) {
			t.Errorf("the secret is shown: %s", text)
		}
	}
}
