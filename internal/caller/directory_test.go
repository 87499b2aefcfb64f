package caller

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const secret = "sk-0123456789abcdef"

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestParseKey(t *testing.T) {
	sum := sha256.Sum256([]byte(secret))
	for _, tt := range []struct {
		line  string
		class Class
		want  Limits
	}{
		{"a:" + secret, Interactive, Limits{}},
		{"a:" + hex.EncodeToString(sum[:]), Interactive, Limits{}},
		{"a:" + strings.ToUpper(hex.EncodeToString(sum[:])), Interactive, Limits{}},
		{"A.b-c_1:" + secret + ":batch", Batch, Limits{}},
		{"a:" + secret + ":metrics:", Metrics, Limits{}},
		{"a:" + secret + "::rpm=60,tpm=100000,concurrency=4,models=a|org/b,weight=0.5", Interactive,
			Limits{RequestsPerMinute: 60, TokensPerMinute: 100000, Concurrency: 4, Models: []string{"a", "org/b"}, Weight: 0.5}},
	} {
		k, err := parseKey(tt.line)
		if err != nil || k.class != tt.class || fmt.Sprint(k.limits) != fmt.Sprint(tt.want) || k.digest != sum {
			t.Errorf("%s: %+v, %v", tt.line, k, err)
		}
	}
	for line, says := range map[string]string{
		"":                             "NAME:KEY",
		"a":                            "NAME:KEY",
		"a:b:c:d:e":                    "NAME:KEY",
		":" + secret:                   "a name has",
		"a b:" + secret:                "a name has",
		"entra:" + secret:              "a name has",
		"entra-a:" + secret:            "begin with",
		"a:short":                      "openssl rand",
		secret + ":ann":                "openssl rand", // the wrong way round
		secret + ":" + secret + ":x":   "interactive, batch and metrics",
		"a:0123456789 abcdef":          "openssl rand",
		"a:entra=x":                    "application (client) id",
		"a:" + secret + ":admin":       "interactive, batch and metrics",
		"a:" + secret + "::rpm=0":      "rpm must be",
		"a:" + secret + "::rpm=1.5":    "rpm must be",
		"a:" + secret + "::rpm=1,rpm":  "given twice",
		"a:" + secret + "::rps=1":      "none of rpm",
		"a:" + secret + "::weight=-1":  "weight must be",
		"a:" + secret + "::weight=NaN": "weight must be",
		"a:" + secret + "::models=":    "models must be",
	} {
		if _, err := parseKey(line); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", line, err, says)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("%q: the key is in the error %q", line, err)
		}
	}
}

// Every fault is told at once, by line, and never a key.
func TestOpenFaults(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	write(t, file, "# comment\n\na:short\nb:"+secret+"\nb:"+secret+"1\nc:"+secret+":admin\n")
	_, err := Open(Config{File: file, Keys: "d;e:" + secret}, quiet())
	if err == nil {
		t.Fatal("no fault")
	}
	for _, want := range []string{file + ": line 3: ", file + ": line 6: the class", "INFER_API_KEYS: line 1: "} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
	write(t, file, "b:"+secret+"\nb:"+secret+"1\nc:"+secret+"\n")
	if _, err = Open(Config{File: file}, quiet()); err == nil || !strings.Contains(err.Error(), "the name b occurs twice") || !strings.Contains(err.Error(), "b and c are the same key") {
		t.Errorf("%v", err)
	}
	if strings.Contains(fmt.Sprint(err), secret) {
		t.Errorf("a key is in %v", err)
	}
	write(t, file, "# none\n")
	if _, err = Open(Config{File: file}, quiet()); err == nil || !strings.Contains(err.Error(), "lock everybody out") {
		t.Errorf("%v", err)
	}
	if _, err = Open(Config{File: file + ".missing"}, quiet()); err == nil || !strings.Contains(err.Error(), "--api-keys-file") {
		t.Errorf("%v", err)
	}
	if _, err = Open(Config{Keys: " ; # none"}, quiet()); err == nil || !strings.Contains(err.Error(), "unset the variable") {
		t.Errorf("%v", err)
	}
	write(t, file, strings.Repeat("#", maxKeysFile+1))
	if _, err = Open(Config{File: file}, quiet()); err == nil || !strings.Contains(err.Error(), "hardly a file of keys") {
		t.Errorf("%v", err)
	}
}

// A fault in a folder is told by the file.
func TestFaultsOfAFolder(t *testing.T) {
	for text, says := range map[string]string{
		"short":                          "line 1: a key has",
		secret + "\nben:" + secret + "2": "each file is one key",
		secret + ":admin":                "interactive, batch and metrics",
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "ann"), text)
		_, err := Open(Config{File: dir}, quiet())
		if err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), filepath.Join(dir, "ann")) || strings.Contains(err.Error(), secret) {
			t.Errorf("%v, want the file and %q", err, says)
		}
	}
}

// Whatever prints the configuration prints no key.
func TestConfigIsRedacted(t *testing.T) {
	var log bytes.Buffer
	c := Config{File: "f", Keys: "a:" + secret}
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c)
	if text := log.String() + fmt.Sprintf("%v %+v %s", c, c, c); strings.Contains(text, secret) || !strings.Contains(text, "redacted") {
		t.Error(text)
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// All keys are compared, wherever the right one stands, also when it is found.
func TestAllKeysAreCompared(t *testing.T) {
	var keys []key
	for i := range 100 {
		keys = append(keys, key{digest: sha256.Sum256(fmt.Append(nil, i))})
	}
	keys = append(keys, key{entra: "x"})
	for _, want := range []int{0, 50, 99, -1} {
		digest := Digest(sha256.Sum256(fmt.Append(nil, want)))
		compared := 0
		got := find(keys, digest, func(a, b []byte) int { compared++; return subtle.ConstantTimeCompare(a, b) })
		if got != want || compared != len(keys) {
			t.Errorf("found %d of %d after %d comparisons", got, want, compared)
		}
	}
	if got := find(keys, Digest{}, subtle.ConstantTimeCompare); got != -1 {
		t.Errorf("an application without a key matches at %d", got)
	}
}

// A mounted secret is a folder whose files are links into ..data, which is
// swapped as a whole.
func TestMountedSecret(t *testing.T) {
	dir := t.TempDir()
	version := func(n int, files map[string]string) {
		t.Helper()
		to := fmt.Sprintf("..v%d", n)
		if err := os.Mkdir(filepath.Join(dir, to), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			write(t, filepath.Join(dir, to, name), text)
			_ = os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)) // may be there
		}
		if err := os.Symlink(to, filepath.Join(dir, "..new")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version(1, map[string]string{"ann": secret + "\n", "ben": secret + "2:batch:rpm=1\n"})
	var log bytes.Buffer
	d, err := Open(Config{File: dir, Keys: "env:" + secret + "3"}, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	who := func(secret string) string {
		if a, ok := d.Find(secret); ok {
			return a.Name
		}
		return ""
	}
	if who(secret) != "ann" || who(secret+"2") != "ben" || who(secret+"3") != "env" || who("x") != "" {
		t.Errorf("%q %q %q", who(secret), who(secret+"2"), who(secret+"3"))
	}
	ben, _ := d.Find(secret + "2")
	if _, err := ben.Spend(1); err != nil {
		t.Fatal(err)
	}
	version(2, map[string]string{"ann": secret + "4", "ben": secret + "2:batch:rpm=1"})
	d.Reload()
	if who(secret) != "" || who(secret+"4") != "ann" || who(secret+"3") != "env" {
		t.Errorf("after the swap: %q %q %q", who(secret), who(secret+"4"), who(secret+"3"))
	}
	if again, _ := d.Find(secret + "2"); again != ben {
		t.Errorf("what ben has spent is forgotten")
	}
	version(3, map[string]string{"ann": "short", "ben": "x"})
	d.Reload()
	d.Reload()
	if who(secret+"4") != "ann" {
		t.Errorf("a fault has cost a key")
	}
	if n := strings.Count(log.String(), "the old ones stay"); n != 1 || strings.Contains(log.String(), secret) {
		t.Errorf("%d lines about the fault, want 1:\n%s", n, &log)
	}
	if !slices.Equal(d.Labels(), []string{"ann", "ben", "env"}) {
		t.Errorf("labels %v", d.Labels())
	}
}

// Run notices a change by itself.
func TestRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "keys")
	write(t, file, "a:"+secret)
	synctest.Test(t, func(t *testing.T) {
		d, err := Open(Config{File: file}, quiet())
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- d.Run(ctx) }()
		write(t, file, "a:"+secret+"2")
		<-time.After(reloadEvery + time.Second)
		if _, ok := d.Find(secret + "2"); !ok {
			t.Errorf("the change went by")
		}
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// What is spent comes back within a minute; an estimate is corrected; the
// headers' numbers follow.
func TestSpend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount("a", "a", Interactive, Limits{RequestsPerMinute: 3, TokensPerMinute: 600, Concurrency: 2}, time.Now())
		one, err := a.Spend(100)
		if err != nil {
			t.Fatal(err)
		}
		two, err := a.Spend(100)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = a.Spend(1); err == nil || err.Limit != "requests at once" {
			t.Errorf("%v", err)
		}
		if _, tokens := a.Rates(); tokens != (Rate{600, 400, 20 * time.Second}) {
			t.Errorf("%v", tokens)
		}
		one(10)
		one(1000) // a second time it counts for nothing
		if requests, tokens := a.Rates(); tokens.Remaining != 490 || requests != (Rate{3, 1, 40 * time.Second}) {
			t.Errorf("%v %v", requests, tokens)
		}
		two(600) // more than was thought
		if _, tokens := a.Rates(); tokens.Remaining != 0 {
			t.Errorf("%v", tokens)
		}
		if _, err = a.Spend(40); err == nil || err.Limit != "tokens a minute" || err.Wait != 5*time.Second {
			t.Errorf("%+v", err)
		}
		if _, err = a.Spend(601); err == nil || !err.Never {
			t.Errorf("%+v", err)
		}
		<-time.After(err0(a, 40))
		three, err := a.Spend(40)
		if err != nil {
			t.Fatalf("after the wait that was told: %v", err)
		}
		three(40)
		if _, err = a.Spend(0); err == nil || err.Limit != "requests a minute" || err.Wait != 15*time.Second {
			t.Errorf("%+v", err)
		}
		before, _ := a.Rates()
		four, err := a.Resume(0)
		if err != nil {
			t.Fatalf("what was counted before: %v", err)
		}
		four(0)
		if requests, _ := a.Rates(); requests != before {
			t.Errorf("it took a request of the minute: %v, before %v", requests, before)
		}
		a.set(Batch, Limits{RequestsPerMinute: 6}, time.Now())
		if requests, tokens := a.Rates(); requests.Remaining != 3 || tokens.Limit != 0 {
			t.Errorf("after the limits changed: %v %v", requests, tokens)
		}
		<-time.After(2 * time.Minute)
		if requests, _ := a.Rates(); requests != (Rate{6, 6, 0}) {
			t.Errorf("%v", requests)
		}
	})
}

func err0(a *Account, tokens int) time.Duration {
	_, err := a.Spend(tokens)
	return err.Wait
}

func FuzzKeys(f *testing.F) {
	f.Add("a:" + secret + ":batch:rpm=1,models=a|b\n# x\nb:entra=00000000-0000-0000-0000-000000000000")
	f.Fuzz(func(t *testing.T, text string) {
		keys, err := parseKeys("x", text)
		for _, k := range keys {
			if l := k.limits; !validName(k.name) || l.RequestsPerMinute < 0 || l.TokensPerMinute < 0 || l.Concurrency < 0 || l.Weight < 0 || l.Weight > 100 {
				t.Errorf("%+v", k)
			}
		}
		if distinct(keys) == nil {
			for i, k := range keys {
				if got := find(keys, k.digest, subtle.ConstantTimeCompare); k.entra == "" && got != i {
					t.Errorf("key %d is found as %d", i, got)
				}
			}
		}
		if err != nil && strings.Contains(text, secret) && strings.Contains(err.Error(), secret) {
			t.Errorf("a key is in %v", err)
		}
	})
}

func BenchmarkFind(b *testing.B) {
	for _, n := range []int{1, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var lines strings.Builder
			for i := range n {
				fmt.Fprintf(&lines, "k%d:%s-%d\n", i, secret, i)
			}
			d, err := Open(Config{Keys: lines.String()}, quiet())
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, ok := d.Find(secret + "-0"); !ok {
					b.Fatal("lost")
				}
			}
		})
	}
}

func BenchmarkSpend(b *testing.B) {
	a := newAccount("a", "a", Interactive, Limits{RequestsPerMinute: 1e9, TokensPerMinute: 1e9}, time.Now())
	for b.Loop() {
		done, err := a.Spend(1)
		if err != nil {
			b.Fatal(err)
		}
		done(1)
	}
}
