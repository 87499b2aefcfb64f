package vllm

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

// The test binary is also the fake vLLM: see fake_test.go.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 2 && os.Args[1] == "guard":
		if err := Guard(os.Stdin); err != nil {
			os.Exit(1)
		}
	case os.Getenv("FAKE_PART") != "":
		fakePart(os.Getenv("FAKE_PART"))
	case os.Getenv("FAKE_VLLM") != "":
		fakeServer(os.Getenv("FAKE_VLLM"), os.Args[1:])
	default:
		goleak.VerifyTestMain(m)
	}
}
