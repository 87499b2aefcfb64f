// Package caller knows who is asking and what they may spend: API keys from
// files and the environment, tokens of Entra ID, and the rate that each has
// left. It answers nobody and starts no goroutine but those of Run.
package caller

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
)

// Class says what a caller's key is for.
type Class string

// The classes.
const (
	Interactive Class = "interactive" // somebody waits for the answers; the default
	Batch       Class = "batch"       // gets what interactive work leaves
	Metrics     Class = "metrics"     // may read /metrics and /scale, and nothing else
)

// Limits bound what one caller may spend. Zero means no bound.
type Limits struct {
	RequestsPerMinute int
	TokensPerMinute   int      // prompt and completion tokens
	Concurrency       int      // requests that are open at once, waiting ones included
	Models            []string // names that may be asked for; empty for all
	Weight            float64  // share beside that of other callers; 0 counts as 1
}

// Allows says whether the caller may ask for the model of this name.
func (l Limits) Allows(model string) bool {
	return len(l.Models) == 0 || slices.Contains(l.Models, model)
}

// Digest is the SHA-256 of a key.
type Digest [sha256.Size]byte

// LogValue implements slog.LogValuer: not even the digest is for a log.
func (Digest) LogValue() slog.Value { return slog.StringValue("[redacted]") }

// String implements fmt.Stringer, for the same reason.
func (Digest) String() string { return "[redacted]" }

// key is one line of a file of keys.
type key struct {
	name   string
	digest Digest // unless entra
	entra  string // the id of an application of Entra ID, in lower case
	class  Class
	limits Limits
}

// minKey is the fewest characters of a key. What is shorter can be guessed.
const minKey = 16

// parseKey reads NAME:KEY[:CLASS[:LIMITS]]. KEY is the key itself, 64
// hexadecimal digits for its SHA-256, or entra=ID for an application of Entra
// ID. Errors repeat no field that is not one of our own words: who swaps name and
// key must not find the key in the log.
func parseKey(line string) (key, error) {
	fields := strings.Split(line, ":")
	if len(fields) < 2 || len(fields) > 4 {
		return key{}, errors.New("write NAME:KEY, NAME:KEY:CLASS or NAME:KEY:CLASS:LIMITS")
	}
	k := key{name: fields[0], class: Interactive}
	if !validName(k.name) {
		return key{}, errors.New("a name has 1 to 64 letters, digits, dots, dashes and underlines, and is none of " + strings.Join(reserved, ", "))
	}
	if strings.HasPrefix(k.name, "entra-") || strings.HasPrefix(k.name, "dapr-") { // of callers without a key
		return key{}, errors.New("a name does not begin with entra- or dapr-")
	}
	if err := k.secret(fields[1]); err != nil {
		return key{}, err
	}
	if len(fields) > 2 && fields[2] != "" {
		k.class = Class(fields[2])
		if k.class != Interactive && k.class != Batch && k.class != Metrics {
			return key{}, errors.New("the class is none of interactive, batch and metrics")
		}
	}
	if len(fields) > 3 {
		limits, err := ParseLimits(fields[3])
		if err != nil {
			return key{}, err
		}
		k.limits = limits
	}
	return k, nil
}

func (k *key) secret(text string) error {
	if id, ok := strings.CutPrefix(text, "entra="); ok {
		if !isGUID(id) {
			return errors.New("entra= wants the application (client) id, such as 00000000-0000-0000-0000-000000000000")
		}
		k.entra = strings.ToLower(id)
		return nil
	}
	if digest, ok := fromHex(text); ok {
		k.digest = digest
		return nil
	}
	if len(text) < minKey || strings.ContainsFunc(text, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return fmt.Errorf("a key has %d printable characters at least; make one with openssl rand -hex 24", minKey)
	}
	k.digest = sha256.Sum256([]byte(text))
	return nil
}

// reserved are names with a meaning of their own in logs and metrics.
var reserved = []string{"anonymous", "entra", "dapr"}

func validName(name string) bool {
	return len(name) > 0 && len(name) <= 64 && !slices.Contains(reserved, name) && !strings.ContainsFunc(name, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-'
	})
}

// ParseLimits reads a list such as
//
//	rpm=60,tpm=100000,concurrency=4,models=a|b,weight=2
func ParseLimits(text string) (Limits, error) {
	var l Limits
	if strings.TrimSpace(text) == "" {
		return l, nil
	}
	seen := map[string]bool{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		if seen[name] {
			return l, fmt.Errorf("%s is given twice", name)
		}
		seen[name] = true
		if err := l.set(name, value); err != nil {
			return l, err
		}
	}
	return l, nil
}

func (l *Limits) set(name, value string) error {
	whole := map[string]*int{"rpm": &l.RequestsPerMinute, "tpm": &l.TokensPerMinute, "concurrency": &l.Concurrency}
	switch to := whole[name]; {
	case to != nil:
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > 1e9 {
			return fmt.Errorf("%s must be a whole number from 1 to 1000000000; leave it out for no bound", name)
		}
		*to = n
	case name == "weight":
		w, err := strconv.ParseFloat(value, 64)
		if err != nil || !(w >= 0.01 && w <= 100) {
			return errors.New("weight must be a number from 0.01 to 100")
		}
		l.Weight = w
	case name == "models":
		if l.Models = strings.Split(value, "|"); slices.Contains(l.Models, "") {
			return errors.New("models must be names with | between them")
		}
	default:
		return errors.New("a limit is none of rpm, tpm, concurrency, models and weight")
	}
	return nil
}
