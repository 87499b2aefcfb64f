// Package deploy tests what deploy/ ships: a real Prometheus scrapes a running
// infer and evaluates every rule, dashboard and query.
package deploy
