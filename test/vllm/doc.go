// Package vllm runs infer over a real vLLM on the CPU, and over what one has
// written. The tests with a real one take minutes and have the build tag real;
// make test-real installs what they need.
package vllm
