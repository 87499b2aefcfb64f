// Package vllm runs infer over a real vLLM on the CPU. Its tests take minutes
// and have the build tag real; make test-real installs what they need.
package vllm
