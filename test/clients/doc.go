// Package clients runs the built program with a real model and talks to it
// with the clients that people use. It is a module of its own, so that the
// product does not depend on them.
package clients
