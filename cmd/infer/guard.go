package main

import (
	"fmt"

	"infer/internal/engine/vllm"
)

// guardCommand runs this program again, also when its file was replaced.
var guardCommand = []string{"/proc/self/exe", "guard"}

// guardCmd is no command for people: serve runs it beside vLLM.
type guardCmd struct{}

func (guardCmd) run(p process) error {
	if err := vllm.Guard(p.stdin); err != nil {
		return fmt.Errorf("after the death of infer: %w", err)
	}
	return nil
}
