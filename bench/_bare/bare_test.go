package onnx

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"testing"
)

// TestBare is the bare engine of the benchmark in bench/: the model and an
// argmax, without scheduler and HTTP. It takes orders on its standard input
// and replies on its standard output; see piped there. The file lives with the
// benchmark and is laid over this package when that is built, because the model
// is not exported and nobody else has a use for it.
func TestBare(t *testing.T) {
	var cfg Config
	if err := json.Unmarshal([]byte(os.Getenv("INFER_BENCH_BARE")), &cfg); err != nil {
		t.Fatalf("INFER_BENCH_BARE: %v; this test is run by the benchmark in bench/", err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	lib, err := openLibrary(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	defer lib.Close()
	e, err := New(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := e.folder(t.Context(), device{})
	if err != nil {
		t.Fatal(err)
	}
	gc, err := readFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	m, err := newModel(lib, dir, gc, cfg, device{})
	if err != nil {
		t.Fatal(err)
	}
	defer m.close()
	b := &bare{t: t, m: m, lengths: make([]int, cfg.Slots), next: make([]int32, cfg.Slots)}
	orders, replies := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var o bareOrder
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatalf("read order: %v", err)
		}
		var reply struct {
			Error string `json:"error"`
		}
		if err := b.obey(o); err != nil {
			reply.Error = err.Error()
		}
		if err := replies.Encode(reply); err != nil {
			t.Fatalf("write reply: %v", err)
		}
	}
}

type bareOrder struct {
	Op     string  `json:"op"`
	Slot   int     `json:"slot"`
	Prompt []int32 `json:"prompt"`
	Rows   int     `json:"rows"`
	Steps  int     `json:"steps"`
}

// bare decodes greedily.
type bare struct {
	t       *testing.T
	m       *model
	lengths []int
	next    []int32
}

func (b *bare) obey(o bareOrder) error {
	switch o.Op {
	case "prefill":
		logits, err := b.m.prefill(b.t.Context(), o.Slot, o.Prompt, 0)
		if err != nil {
			return err
		}
		b.lengths[o.Slot], b.next[o.Slot] = len(o.Prompt), argmax(logits)
		return nil
	case "decode":
		for range o.Steps {
			rows, err := b.m.decode(b.t.Context(), b.next[:o.Rows], b.lengths[:o.Rows])
			if err != nil {
				return err
			}
			for i, logits := range rows {
				b.next[i] = argmax(logits)
				b.lengths[i]++
			}
		}
		return nil
	}
	return fmt.Errorf("unknown order %q", o.Op)
}
