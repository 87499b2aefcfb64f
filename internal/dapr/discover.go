package dapr

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	sdk "github.com/dapr/go-sdk/client"
)

const callTimeout = 5 * time.Second

// tell writes what peers may know into the sidecar's metadata, under names that
// begin with "infer.", where it differs from what was told, and returns what is
// told now.
func (s *Sidecar) tell(ctx context.Context, told map[string]string) map[string]string {
	d := s.program.Describe()
	now := map[string]string{
		"infer.models":       strings.Join(d.Models, ","),
		"infer.capabilities": strings.Join(d.Capabilities, ","),
	}
	if d.ContextTokens > 0 {
		now["infer.context_tokens"] = strconv.Itoa(d.ContextTokens)
	}
	if s.cfg.DirectURL != "" {
		now["infer.url"] = s.cfg.DirectURL
	}
	if maps.Equal(now, told) {
		return told
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for _, key := range slices.Sorted(maps.Keys(now)) {
		if err := s.client.SetMetadata(ctx, key, now[key]); err != nil {
			s.log.Debug("tell the sidecar what this replica is", "err", err)
			return told // again after the next probe
		}
	}
	return now
}

// check asks the sidecar for its components and says what they lack.
func (s *Sidecar) check(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	m, err := s.client.GetMetadata(ctx)
	if err != nil {
		return []string{fmt.Sprintf("cannot be read: %v", err)}
	}
	return s.lacks(m.RegisteredComponents)
}

// lacks compares components with what the settings need.
func (s *Sidecar) lacks(components []*sdk.MetadataRegisteredComponents) []string {
	var found []string
	has := func(c *sdk.MetadataRegisteredComponents, capability string) bool {
		return slices.Contains(c.Capabilities, capability)
	}
	named := func(kind, name string) *sdk.MetadataRegisteredComponents {
		for _, c := range components {
			if c.Name == name && strings.HasPrefix(c.Type, kind+".") {
				return c
			}
		}
		var there []string
		for _, c := range components {
			if strings.HasPrefix(c.Type, kind+".") {
				there = append(there, c.Name)
			}
		}
		found = append(found, fmt.Sprintf("no %s component is called %q; the sidecar has %s: add the component, or its scope for this app", kind, name, orNone(there)))
		return nil
	}
	if s.cfg.PubSub != "" {
		if c := named("pubsub", s.cfg.PubSub); c != nil {
			if c.Type == "pubsub.in-memory" {
				found = append(found, c.Name+" keeps messages in the sidecar's memory: a restart loses them; use a broker in production")
			}
			if s.cfg.DeadLetter == "" {
				found = append(found, c.Name+" has no dead letter topic: events that expired or cannot be read are dropped; set --dapr-dead-letter")
			}
		}
	}
	if s.cfg.State != "" {
		if c := named("state", s.cfg.State); c != nil {
			if !has(c, "ETAG") {
				found = append(found, c.Name+" has no etags: replicas would overwrite each other's jobs; choose a store with ETAG")
			}
			if !has(c, "TTL") {
				found = append(found, c.Name+" has no TTL: results stay for ever; choose a store with TTL or clean it yourself")
			}
		}
	}
	return found
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}
