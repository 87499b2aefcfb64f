package gguf

import (
	"fmt"
	"math"
)

// readRope reads the rotary embedding's parameters. Llama 3's frequency
// scaling comes ready-made in rope_freqs.weight, whose entries divide the
// frequencies (llama.cpp, ggml_rope_ext's freq_factors).
func (m *llama) readRope() error {
	m.ropeBase, m.ropeScale = 10000, 1
	if v, ok := m.f.meta["llama.rope.freq_base"]; ok {
		base, isFloat := v.(float64)
		if !isFloat || !(base > 0) || math.IsInf(base, 0) {
			return fmt.Errorf("%w: llama.rope.freq_base is %v", ErrInvalid, v)
		}
		m.ropeBase = base
	}
	if n, ok := m.f.meta.count("llama.rope.dimension_count"); ok && n != uint64(m.headDim) {
		return fmt.Errorf("%w: rotary embedding over %d of %d dimensions; only whole heads are imported", ErrUnsupported, n, m.headDim)
	}
	if err := m.readRopeScaling(); err != nil {
		return err
	}
	if m.f.byName["rope_freqs.weight"] == nil {
		return nil
	}
	m.ropeFactors = m.f.byName["rope_freqs.weight"]
	return m.want("rope_freqs.weight", m.headDim/2)
}

func (m *llama) readRopeScaling() error {
	factor, given := m.f.meta.float("llama.rope.scaling.factor")
	if !given {
		factor, given = m.f.meta.float("llama.rope.scale_linear")
	}
	switch kind := m.f.meta.text("llama.rope.scaling.type"); {
	case kind == "none" || !given && (kind == "" || kind == "linear"):
		return nil
	case kind == "linear" || kind == "": // llama.cpp takes an unnamed factor as linear
		if !(factor > 0) || math.IsInf(factor, 0) {
			return fmt.Errorf("%w: rotary scaling factor %v", ErrInvalid, factor)
		}
		m.ropeScale = factor
		return nil
	default:
		return fmt.Errorf("%w: rotary scaling %q; none, linear and rope_freqs.weight are imported", ErrUnsupported, kind)
	}
}

// frequencies returns the angle per position of every rotated pair.
func (m *llama) frequencies() ([]float64, error) {
	factors := []float32(nil)
	if m.ropeFactors != nil {
		var err error
		if factors, err = m.f.floats(m.ropeFactors); err != nil {
			return nil, err
		}
	}
	out := make([]float64, m.headDim/2)
	for i := range out {
		out[i] = math.Pow(m.ropeBase, -2*float64(i)/float64(m.headDim)) / m.ropeScale
		if factors != nil {
			out[i] /= float64(factors[i])
		}
	}
	return out, nil
}
