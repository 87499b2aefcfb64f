package onnx

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"infer/internal/engine"
	"infer/internal/engine/onnx/ort"
)

func TestParseDevice(t *testing.T) {
	for _, tc := range []struct {
		in    string
		want  device
		auto  bool
		fault string
	}{
		{"auto", device{cuda: true}, true, ""},
		{"cpu", device{}, false, ""},
		{"cuda", device{cuda: true}, false, ""},
		{"cuda:0", device{cuda: true}, false, ""},
		{"cuda:3", device{cuda: true, index: 3}, false, ""},
		{"cuda:0,1", device{}, false, "one replica a GPU"},
		{"cuda:", device{}, false, "not auto, cpu, cuda or cuda:N"},
		{"cuda:-1", device{}, false, "not auto, cpu, cuda or cuda:N"},
		{"cuda:x", device{}, false, "not auto, cpu, cuda or cuda:N"},
		{"cuda0", device{}, false, "not auto, cpu, cuda or cuda:N"},
		{"cuda0,1", device{}, false, "not auto, cpu, cuda or cuda:N"},
		{"", device{}, false, "not auto, cpu, cuda or cuda:N"},
		{"tpu", device{}, false, "not auto, cpu, cuda or cuda:N"},
	} {
		got, auto, err := parseDevice(tc.in)
		if got != tc.want || auto != tc.auto || (err == nil) != (tc.fault == "") || err != nil && !strings.Contains(err.Error(), tc.fault) {
			t.Errorf("parseDevice(%q) = %+v, %t, %v; want %+v, %t, %q", tc.in, got, auto, err, tc.want, tc.auto, tc.fault)
		}
	}
}

// TestCUDAFailures holds cause and remedy of what CUDA can lack.
func TestCUDAFailures(t *testing.T) {
	for name, tc := range map[string]struct {
		err    error
		cause  engine.Cause
		remedy string
	}{
		"a missing piece":  {&ort.CUDAFault{Reason: "libx is missing", Remedy: "install x"}, engine.CauseDeviceUnavailable, "install x; or run with --device cpu"},
		"an old driver":    {&ort.CUDAFault{Reason: "too old", Remedy: "newer", OldDriver: true}, engine.CauseDriverMismatch, "newer; or run with --device cpu"},
		"the wrong graph":  {fmt.Errorf("%w: 30 of 31", ort.ErrNotOnCUDA), engine.CauseDeviceUnavailable, "fp16"},
		"something else":   {fmt.Errorf("%w: CUDA failure 719", ort.ErrNoCUDA), engine.CauseDeviceUnavailable, "--device cpu"},
		"memory, of CUDA":  {fmt.Errorf("%w: CUDA failure 2: out of memory", ort.ErrNoCUDA), engine.CauseOutOfMemoryAtStart, "smaller model"},
		"memory, of arena": {fmt.Errorf("%w: Failed to allocate memory for requested buffer of size 9", ort.ErrNoCUDA), engine.CauseOutOfMemoryAtStart, "smaller model"},
		"a damaged model":  {errors.New("Protobuf parsing failed"), engine.CauseModelInvalid, "again"},
	} {
		f := sessionFailure("model.onnx", tc.err)
		if f.Cause != tc.cause || !strings.Contains(f.Remedy, tc.remedy) || !strings.Contains(f.Message, tc.err.Error()) {
			t.Errorf("%s: %+v, want %s with %q", name, f, tc.cause, tc.remedy)
		}
	}
}
