package caller

import (
	"fmt"
	"sync"
	"time"
)

// Account is one caller and what it has spent. Any goroutine may use it; it
// lives on when the files of keys are read again.
type Account struct {
	Name  string // unique; for logs, ownership and what is kept apart between callers
	Label string // for metrics: the name of a key, or entra for applications without one

	mu       sync.Mutex
	class    Class
	limits   Limits
	requests bucket
	tokens   bucket
	open     int
}

func newAccount(name, label string, class Class, limits Limits, now time.Time) *Account {
	a := &Account{Name: name, Label: label}
	a.set(class, limits, now)
	return a
}

func (a *Account) set(class Class, limits Limits, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.class, a.limits = class, limits
	a.requests.set(limits.RequestsPerMinute, now)
	a.tokens.set(limits.TokensPerMinute, now)
}

// Terms are the account's class and limits of now.
func (a *Account) Terms() (Class, Limits) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.class, a.limits
}

// Exceeded says which limit a request would break.
type Exceeded struct {
	Limit string        // "requests a minute", "tokens a minute" or "requests at once"
	Bound int           // what it is
	Wait  time.Duration // until the request fits; 0 when that cannot be known
	Never bool          // it is larger than the bound and fits at no time
}

// Error says what to do.
func (e *Exceeded) Error() string {
	if e.Never {
		return fmt.Sprintf("the request alone is over this key's bound of %d %s; shorten it, lower max_tokens or ask for a higher limit", e.Bound, e.Limit)
	}
	return fmt.Sprintf("this key is over its bound of %d %s; retry after the time in Retry-After", e.Bound, e.Limit)
}

// Spend opens a request that is expected to need so many tokens, or says which
// limit is in the way, in which case nothing is spent. done must be called once
// when the request has ended, with the tokens that were really used; further
// calls do nothing.
func (a *Account) Spend(tokens int) (done func(used int), err *Exceeded) { return a.spend(1, tokens) }

// Resume is Spend for what was counted as a request before: it takes no other
// of the minute.
func (a *Account) Resume(tokens int) (done func(used int), err *Exceeded) { return a.spend(0, tokens) }

// Ready says which limit is in the way of another request, however small it is,
// and spends nothing. counted is for what Resume would be asked.
func (a *Account) Ready(counted bool) *Exceeded {
	requests := 1.0
	if counted {
		requests = 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lacks(requests, 0, time.Now())
}

// lacks says which limit is in the way. a.mu is held.
func (a *Account) lacks(requests float64, tokens int, now time.Time) *Exceeded {
	if bound := a.limits.Concurrency; bound > 0 && a.open >= bound {
		return &Exceeded{Limit: "requests at once", Bound: bound}
	}
	if wait, _ := a.requests.lacks(requests, now); wait > 0 && requests > 0 {
		return &Exceeded{Limit: "requests a minute", Bound: a.limits.RequestsPerMinute, Wait: wait}
	}
	if wait, never := a.tokens.lacks(float64(tokens), now); wait > 0 || never {
		return &Exceeded{Limit: "tokens a minute", Bound: a.limits.TokensPerMinute, Wait: wait, Never: never}
	}
	return nil
}

func (a *Account) spend(requests float64, tokens int) (done func(used int), err *Exceeded) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.lacks(requests, tokens, now); err != nil {
		return nil, err
	}
	a.open++
	a.requests.take(requests, now)
	a.tokens.take(float64(tokens), now)
	var once sync.Once
	return func(used int) {
		once.Do(func() {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.open--
			a.tokens.take(float64(used-tokens), time.Now())
		})
	}, nil
}

// Rates are what is left of the requests and tokens of a minute.
func (a *Account) Rates() (requests, tokens Rate) {
	now := time.Now()
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.requests.rate(now), a.tokens.rate(now)
}
