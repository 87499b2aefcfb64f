package jobs

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"infer/internal/openai"
	"infer/internal/store"
)

const (
	countEvery = time.Minute      // others accept and end work, too
	countAgain = time.Second      // for a caller who seems to have as much as is allowed
	quotaPause = 10 * time.Second // after which a caller over the bound may try again
)

// quota bounds the unfinished work of each caller by its reminders in the store.
// Between two counts only what this process accepts is added, so that replicas
// together may let a few more in.
type quota struct {
	most  int // 0 for no bound
	store store.Store

	turn    chan struct{}  // holds a value while somebody has what follows
	open    map[string]int // reminders by ownerKey
	counted time.Time
}

func newQuota(most int, st store.Store) quota {
	return quota{most: most, store: st, turn: make(chan struct{}, 1)}
}

// take makes room for one more, or returns what to tell the caller.
func (q *quota) take(ctx context.Context, owner string) error {
	if q.most == 0 {
		return nil
	}
	select {
	case q.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-q.turn }()
	key, age := ownerKey(owner), time.Since(q.counted)
	if age >= countEvery || q.open[key] >= q.most && age >= countAgain {
		if err := q.count(ctx); err != nil {
			return err
		}
	}
	if q.open[key] >= q.most {
		return &openai.Error{Status: http.StatusTooManyRequests, Type: openai.TypeRateLimit, Code: openai.CodeRateLimit,
			Message: fmt.Sprintf("this caller has %d unfinished jobs, batches and background responses, as many as --max-jobs allows; "+
				"retry after the time in Retry-After, or cancel some", q.open[key])}
	}
	q.open[key]++
	return nil
}

// count reads whose reminders there are.
func (q *quota) count(ctx context.Context) error {
	const many = 10 * page
	open, now := map[string]int{}, time.Now()
	for _, folder := range []string{todoBatch, todoTask, todoHook} {
		for after, more := "", true; more; {
			keys, err := q.store.List(ctx, folder, after, many)
			if err != nil {
				return err
			}
			for _, key := range keys {
				open[ownerOf(key)]++
			}
			if more = len(keys) == many; more {
				after = keys[many-1]
			}
		}
	}
	q.open, q.counted = open, now
	return nil
}

// ownerOf is the ownerKey in a reminder's key.
func ownerOf(todo string) string {
	_, rest, _ := strings.Cut(todo, "-")
	owner, _, _ := strings.Cut(rest, ".")
	return owner
}
