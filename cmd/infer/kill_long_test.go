//go:build real

package main

// How much the tests of kills do in make test-real.
const (
	killLines = 1000
	kills     = 100
)
