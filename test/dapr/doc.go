// Package dapr runs the whole program beside real Dapr sidecars. Its tests have
// the build tag real: make test-real builds what they need.
package dapr
