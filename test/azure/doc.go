// Package azure checks deploy/containerapp.yaml against the typed model of
// Azure's own SDK. It is a module of its own to keep the SDK out of the product's.
package azure
