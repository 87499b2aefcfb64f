package caller

import (
	"fmt"
	"time"

	"github.com/hashicorp/golang-lru/v2"
)

// Peers are callers that something else than a key made known, such as the apps
// of a Dapr sidecar. They share a label in metrics and have limits each of its
// own. Any goroutine may use them.
type Peers struct {
	label    string
	class    Class
	limits   Limits
	accounts *lru.Cache[string, *Account]
}

// NewPeers returns peers whose accounts are named LABEL-NAME.
func NewPeers(label string, class Class, limits Limits) (*Peers, error) {
	accounts, err := lru.New[string, *Account](maxApps)
	if err != nil {
		return nil, fmt.Errorf("make the list of peers: %w", err)
	}
	return &Peers{label: label, class: class, limits: limits, accounts: accounts}, nil
}

// Account returns the account of one peer. A name that is none counts with all
// whose name is not known.
func (p *Peers) Account(name string) *Account {
	full := p.label
	if validName(name) {
		full += "-" + name
	}
	if a, ok := p.accounts.Get(full); ok {
		return a
	}
	a := newAccount(full, p.label, p.class, p.limits, time.Now())
	if was, ok, _ := p.accounts.PeekOrAdd(full, a); ok {
		return was
	}
	return a
}
