package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"

	"github.com/hybridgroup/yzma/pkg/llama"
)

// llamaConfig is the command line of "bench llama".
type llamaConfig struct {
	folder, model           string
	threads, slots, context int
}

// flags declares the command line on fs.
func (c *llamaConfig) flags(fs *flag.FlagSet) {
	fs.StringVar(&c.folder, "libraries", "", "folder of llama.cpp's libraries")
	fs.StringVar(&c.model, "model", "", "GGUF file")
	fs.IntVar(&c.threads, "threads", 1, "threads")
	fs.IntVar(&c.slots, "slots", 4, "sequences")
	fs.IntVar(&c.context, "context", 1024, "tokens a sequence may have")
}

// startLlama runs this program once more, as llama.cpp's host.
func startLlama(ctx context.Context, c llamaConfig, stderr io.Writer) (*piped, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return startPiped(ctx, stderr, nil, self, "llama", "--libraries", c.folder, "--model", c.model,
		"--threads", fmt.Sprint(c.threads), "--slots", fmt.Sprint(c.slots), "--context", fmt.Sprint(c.context))
}

// runLlama is "bench llama": it loads the model and obeys.
func runLlama(args []string, in io.Reader, out, stderr io.Writer) error {
	var c llamaConfig
	fs := flag.NewFlagSet("bench llama", flag.ContinueOnError)
	fs.SetOutput(stderr)
	c.flags(fs)
	if err := fs.Parse(args); err != nil {
		return err
	}
	l, err := newLlama(c)
	if err != nil {
		return err
	}
	defer l.close()
	return obey(l, in, out)
}

// maxBatch bounds the tokens of one call, as llama.cpp's own default does.
const maxBatch = 512

// llamaCPP decodes greedily with llama.cpp. Everything that is not about size
// is left at llama.cpp's defaults, which are what its own server starts with.
type llamaCPP struct {
	model   llama.Model
	ctx     llama.Context
	memory  llama.Memory
	batch   llama.Batch
	vocab   int
	lengths []int
	next    []llama.Token
}

func newLlama(c llamaConfig) (*llamaCPP, error) {
	if err := llama.Load(c.folder); err != nil {
		return nil, fmt.Errorf("load llama.cpp: %w; fetch it with scripts/fetch-llama.sh and name its folder with --llama", err)
	}
	llama.LogSet(llama.LogSilent())
	llama.Init()
	model, err := llama.ModelLoadFromFile(c.model, llama.ModelDefaultParams())
	if err != nil || model == 0 {
		return nil, fmt.Errorf("load %s: %v; llama.cpp reads .gguf files", c.model, err)
	}
	p := llama.ContextDefaultParams()
	p.NCtx, p.NSeqMax = uint32(c.context*c.slots), uint32(c.slots)
	p.NBatch, p.NUbatch = maxBatch, maxBatch
	p.NThreads, p.NThreadsBatch = int32(c.threads), int32(c.threads)
	ctx, err := llama.InitFromModel(model, p)
	if err != nil || ctx == 0 {
		return nil, fmt.Errorf("reserve llama.cpp's context: %v; lower --context or --streams", err)
	}
	memory, err := llama.GetMemory(ctx)
	if err != nil {
		return nil, fmt.Errorf("find llama.cpp's KV cache: %w", err)
	}
	return &llamaCPP{
		model: model, ctx: ctx, memory: memory, batch: llama.BatchInit(maxBatch, 0, 1),
		vocab:   int(llama.VocabNTokens(llama.ModelGetVocab(model))),
		lengths: make([]int, c.slots), next: make([]llama.Token, c.slots),
	}, nil
}

func (l *llamaCPP) close() {
	_ = llama.BatchFree(l.batch)
	_ = llama.Free(l.ctx)
	_ = llama.ModelFree(l.model)
	llama.Close()
}

// prefill replaces what slot held.
func (l *llamaCPP) prefill(slot int, prompt []int32) error {
	if slot >= len(l.next) || len(prompt) > maxBatch {
		return fmt.Errorf("slot %d or prompt of %d tokens is too large; there are %d slots and at most %d tokens", slot, len(prompt), len(l.next), maxBatch)
	}
	if err := l.clear(slot); err != nil {
		return fmt.Errorf("clear slot: %w", err)
	}
	if err := l.batch.Clear(); err != nil {
		return err
	}
	for i, id := range prompt {
		if err := l.batch.Add(llama.Token(id), llama.Pos(i), []llama.SeqId{llama.SeqId(slot)}, i == len(prompt)-1); err != nil {
			return fmt.Errorf("fill batch: %w", err)
		}
	}
	l.lengths[slot] = len(prompt)
	return l.run(slot, len(prompt)-1, 1)
}

// decode extends the first rows slots by steps tokens each.
func (l *llamaCPP) decode(rows, steps int) error {
	if rows > len(l.next) {
		return fmt.Errorf("%d rows, there are %d slots", rows, len(l.next))
	}
	for range steps {
		if err := l.batch.Clear(); err != nil {
			return err
		}
		for slot := range rows {
			if err := l.batch.Add(l.next[slot], llama.Pos(l.lengths[slot]), []llama.SeqId{llama.SeqId(slot)}, true); err != nil {
				return fmt.Errorf("fill batch: %w", err)
			}
			l.lengths[slot]++
		}
		if err := l.run(0, 0, rows); err != nil {
			return err
		}
	}
	return nil
}

// run computes the batch and samples n slots from the logits at position first
// on.
func (l *llamaCPP) run(slot, first, n int) error {
	if code, err := llama.Decode(l.ctx, l.batch); err != nil || code != 0 {
		return fmt.Errorf("llama_decode returned %d: %v", code, err)
	}
	for i := range n {
		logits, err := llama.GetLogitsIth(l.ctx, int32(first+i), l.vocab)
		if err != nil || logits == nil {
			return fmt.Errorf("llama.cpp has no logits for row %d: %v", first+i, err)
		}
		l.next[slot+i] = llama.Token(argmax(logits))
	}
	return nil
}

func argmax(logits []float32) int {
	best := 0
	for i, v := range logits {
		if v > logits[best] {
			best = i
		}
	}
	return best
}
