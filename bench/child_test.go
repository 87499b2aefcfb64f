package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestMain lets the test binary be a child that obeys.
func TestMain(m *testing.M) {
	if os.Getenv("FAKE_ENGINE") == "" {
		os.Exit(m.Run())
	}
	if err := obey(&fakeDecoder{}, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// fakeDecoder burns some CPU time and notes its orders.
type fakeDecoder struct{ log []string }

func (f *fakeDecoder) prefill(slot int, prompt []int32) error {
	f.log = append(f.log, fmt.Sprintf("prefill %d %v", slot, prompt))
	if len(prompt) == 0 {
		return errors.New("no prompt")
	}
	return nil
}

func (f *fakeDecoder) decode(rows, steps int) error {
	f.log = append(f.log, fmt.Sprintf("decode %d %d", rows, steps))
	x := 1.0
	for range 200_000_000 {
		x = x*1.0000001 + 1
	}
	if x < 0 {
		return errors.New("impossible")
	}
	return nil
}

func (f *fakeDecoder) mix(m mix) (mixTimes, error) {
	f.log = append(f.log, fmt.Sprintf("mix %v", m.Shorts))
	return mixTimes{ITL: []float64{0.25}}, nil
}

func TestObey(t *testing.T) {
	const in = `{"op":"prefill","slot":2,"prompt":[7,8]}
{"op":"prefill","slot":0}
{"op":"dance"}
{"op":"decode","rows":3,"steps":5}
{"op":"mix"}
{"op":"mix","mix":{"shorts":[[1],[2]]}}
`
	f, out := &fakeDecoder{}, &strings.Builder{}
	if err := obey(f, strings.NewReader(in), out); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(f.log, "; "), "prefill 2 [7 8]; prefill 0 []; decode 3 5; mix [[1] [2]]"; got != want {
		t.Errorf("carried out %q, want %q", got, want)
	}
	want := `{"error":""}
{"error":"no prompt"}
{"error":"unknown order \"dance\""}
{"error":""}
{"error":"unknown order \"mix\""}
{"error":"","mix":{"ttft":null,"itl":[0.25],"long":0}}
`
	if out.String() != want {
		t.Errorf("replies %s, want %s", out, want)
	}
	if err := obey(f, strings.NewReader("{"), out); err == nil {
		t.Error("half an order was obeyed")
	}
}

func startFake(t *testing.T) *piped {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p, err := startPiped(t.Context(), t.Output(), []string{"FAKE_ENGINE=1"}, self)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPipedMeasuresItsChild(t *testing.T) {
	p := startFake(t)
	got, err := p.decode(t.Context(), [][]int32{{1}, {2}}, 8)
	if err != nil {
		t.Fatal(err)
	}
	if got.Tokens != 16 || got.CPU <= 0 || got.Wall <= 0 {
		t.Errorf("sample %+v, want 16 tokens and both times over 0", got)
	}
	if _, err := p.prefill(t.Context(), nil); err == nil || !strings.Contains(err.Error(), "no prompt") {
		t.Errorf("prefill = %v, want the child's own error", err)
	}
	if err := p.stop(); err != nil {
		t.Errorf("stop = %v", err)
	}
}

func TestPipedSaysThatItsChildDied(t *testing.T) {
	p := startFake(t)
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.decode(t.Context(), [][]int32{{1}}, 1); err == nil {
		t.Error("a dead child was measured")
	}
	if err := p.stop(); err == nil {
		t.Error("stop hid that the child was killed")
	}
}
