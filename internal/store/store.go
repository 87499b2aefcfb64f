// Package store keeps small values under keys: the one way in which durable
// work is written down. Memory, a bbolt file and whatever else satisfies Store
// pass the one suite of package storetest.
package store

import (
	"context"
	"errors"
	"time"
)

// Errors that callers branch on. Every other error of a write leaves open
// whether it took place: whoever must know reads the key again.
var (
	ErrConflict = errors.New("the value was changed by somebody else") // Create found a value, Swap or Delete another revision or none
	ErrNotFound = errors.New("no such key")                            // Get found nothing, or what had expired
	ErrTooLarge = errors.New("the value is larger than a store takes") // over MaxValueBytes
	ErrFull     = errors.New("the store is full")                      // the disk, or the bound of the memory
	ErrCorrupt  = errors.New("the store is corrupt")                   // its file is damaged
	ErrLocked   = errors.New("the store is in use by another process") // two processes cannot share one file
	ErrBadKey   = errors.New("the key is empty, too long or holds bytes that not every store takes")
)

// MaxValueBytes is the largest value. It leaves room for the envelope within
// the 4 MiB that gRPC takes by default; what is larger is cut into pieces.
const MaxValueBytes = 3 << 20

// maxKeyBytes is the longest key. Cosmos DB takes 255 characters, of which a
// sidecar needs some for its own prefix.
const maxKeyBytes = 200

// Item is a value and its revision, which every write changes. A revision is
// compared for equality only.
type Item struct {
	Value []byte
	Rev   string
}

// Store is safe for concurrent use, also by several processes where the
// implementation is shared between them. A ttl of 0 keeps a value for ever;
// after it the key is as good as deleted. No operation spans two keys.
type Store interface {
	// Create writes value unless the key has one, which is ErrConflict.
	Create(ctx context.Context, key string, value []byte, ttl time.Duration) error
	// Get returns the value, which the caller owns, or ErrNotFound.
	Get(ctx context.Context, key string) (Item, error)
	// Swap replaces the value of revision rev, and its ttl. Any other state of
	// the key, also none, is ErrConflict.
	Swap(ctx context.Context, key, rev string, value []byte, ttl time.Duration) error
	// Delete removes the value of revision rev, or any when rev is empty. A
	// key that is not there is no error when rev is empty.
	Delete(ctx context.Context, key, rev string) error
	// List returns up to limit keys with the prefix, in ascending order, that
	// are greater than after. The prefix ends in a slash.
	List(ctx context.Context, prefix, after string, limit int) ([]string, error)
	// Close lets go of files and connections.
	Close() error
}

// CheckKey returns ErrBadKey for a key that not every store takes: letters,
// digits and - _ . / : are sound in all.
func CheckKey(key string) error {
	if key == "" || len(key) > maxKeyBytes {
		return ErrBadKey
	}
	for _, c := range []byte(key) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == '/', c == ':':
		default:
			return ErrBadKey
		}
	}
	return nil
}

// Check returns ErrTooLarge or ErrBadKey for what not every store takes.
func Check(key string, value []byte) error {
	if len(value) > MaxValueBytes {
		return ErrTooLarge
	}
	return CheckKey(key)
}
