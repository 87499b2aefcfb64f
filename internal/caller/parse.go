package caller

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

// fromHex reads a SHA-256 as sha256sum prints it.
func fromHex(text string) (Digest, bool) {
	var d Digest
	if len(text) != hex.EncodedLen(len(d)) {
		return d, false
	}
	_, err := hex.Decode(d[:], []byte(text))
	return d, err == nil
}

// isGUID says whether text is an id as Entra ID shows it.
func isGUID(text string) bool {
	if len(text) != 36 {
		return false
	}
	for i, c := range []byte(text) {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
		default:
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
				return false
			}
		}
	}
	return true
}

// parseKeys reads lines of keys and reports every fault at once, by where and
// the line's number. Empty lines and those that begin with # mean nothing.
func parseKeys(where, text string) ([]key, error) {
	var keys []key
	var errs []error
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		k, err := parseKey(line)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: line %d: %w", where, number, err))
			continue
		}
		keys = append(keys, k)
	}
	return keys, errors.Join(errs...)
}

// distinct reports names, keys and applications that occur twice.
func distinct(keys []key) error {
	var errs []error
	names, digests, apps := map[string]bool{}, map[Digest]string{}, map[string]string{}
	for _, k := range keys {
		if names[k.name] {
			errs = append(errs, fmt.Errorf("the name %s occurs twice; give each key its own, also a new key that replaces an old one", k.name))
		}
		names[k.name] = true
		if k.entra != "" {
			if other, ok := apps[k.entra]; ok {
				errs = append(errs, fmt.Errorf("%s and %s are the same application", other, k.name))
			}
			apps[k.entra] = k.name
			continue
		}
		if other, ok := digests[k.digest]; ok {
			errs = append(errs, fmt.Errorf("%s and %s are the same key", other, k.name))
		}
		digests[k.digest] = k.name
	}
	return errors.Join(errs...)
}
