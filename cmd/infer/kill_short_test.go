//go:build !real

package main

// How much the tests of kills do in make test.
const (
	killLines = 200
	kills     = 20
)
