package dapr

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	sdk "github.com/dapr/go-sdk/client"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"infer/internal/store"
)

// kept is a state component in memory.
type kept struct {
	sdk.Client
	before func(write bool, key string) error // of every access to one key

	mu     sync.Mutex
	values map[string][]byte
	etags  map[string]int
	reads  int // of one key
}

func newKept() *kept { return &kept{values: map[string][]byte{}, etags: map[string]int{}} }

func (k *kept) store() *Store { return (&Sidecar{client: k}).Store("s") }

func (k *kept) GetStateWithConsistency(_ context.Context, _, key string, _ map[string]string, _ sdk.StateConsistency) (*sdk.StateItem, error) {
	if k.before != nil {
		if err := k.before(false, key); err != nil {
			return nil, err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reads++
	return &sdk.StateItem{Key: key, Value: k.values[key], Etag: fmt.Sprint(k.etags[key])}, nil
}

func (k *kept) SaveStateWithETag(_ context.Context, _, key string, data []byte, etag string, _ map[string]string, _ ...sdk.StateOption) error {
	if k.before != nil {
		if err := k.before(true, key); err != nil {
			return err
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, there := k.values[key]; there && fmt.Sprint(k.etags[key]) != etag || !there && etag != "" {
		return status.Error(codes.Aborted, "another etag")
	}
	k.values[key] = data
	k.etags[key]++
	return nil
}

func (k *kept) DeleteStateWithETag(_ context.Context, _, key string, _ *sdk.ETag, _ map[string]string, _ *sdk.StateOptions) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.values, key)
	return nil
}

func (k *kept) GetBulkState(_ context.Context, _ string, keys []string, _ map[string]string, _ int32) ([]*sdk.BulkStateItem, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var items []*sdk.BulkStateItem
	for _, key := range keys {
		items = append(items, &sdk.BulkStateItem{Key: key, Value: k.values[key], Etag: fmt.Sprint(k.etags[key])})
	}
	return items, nil
}

// fill makes full segments of a folder, of keys that are not there, from the
// first segment on.
func (k *kept) fill(folder string, segments int) {
	for n := range segments {
		var lines []string
		for i := range segmentKeys {
			lines = append(lines, fmt.Sprintf("%d %03d-%03d", time.Now().Unix(), n, i))
		}
		k.put("i:"+folder+fmt.Sprint(n), strings.Join(lines, "\n"))
	}
}

func (k *kept) put(key, value string) {
	k.values[key] = newRecord([]byte(value), 0).bytes()
	k.etags[key]++
}

// A process that is new finds the end of a long list, however long.
func TestIndexOfManySegments(t *testing.T) {
	k := newKept()
	k.fill("file/", addTries+2)
	again := k.store()
	if err := again.Create(t.Context(), "file/new", []byte("x"), 0); err != nil {
		t.Fatal(err)
	}
	if got, err := again.List(t.Context(), "file/", "", 10); err != nil || len(got) != 1 || got[0] != "file/new" {
		t.Errorf("listed %q, %v", got, err)
	}
}

// Who cannot list a key does not say that it is there.
func TestIndexIsBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKept()
		k.fill("file/", 1)
		others := 0
		k.before = func(write bool, key string) error {
			if write && key == "i:file/1" {
				others++
				return status.Error(codes.Aborted, "another was first")
			}
			return nil
		}
		k.put("i:file/1", "")
		err := k.store().Create(t.Context(), "file/new", []byte("x"), 0)
		if err == nil || errors.Is(err, store.ErrConflict) || others != addTries {
			t.Errorf("after %d writes of others: %v", others, err)
		}
	})
}
