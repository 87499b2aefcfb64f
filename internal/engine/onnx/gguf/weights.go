package gguf

import (
	"context"
	"fmt"
	"io"
	"math"
)

// pageBytes aligns every external tensor, so that ONNX Runtime can map the
// weights file instead of reading it.
const pageBytes = 4096

// stepBytes is about how much of a tensor is in memory at once.
const stepBytes = 1 << 20

// region is where the rows of one part of a tensor go in the weights file.
type region struct {
	offset   int64
	rowBytes int  // in the file
	half     bool // filled with fp32, stored as fp16
}

// fillBytes is the length of a row before it is stored.
func (r region) fillBytes() int {
	if r.half {
		return 2 * r.rowBytes
	}
	return r.rowBytes
}

// job fills the rows of some regions, a step of rows at a time.
type job struct {
	rows, step int
	regions    []region
	fill       func(first, n int, bufs [][]byte) error
}

// weights is the plan of the weights file: everything has its place before the
// first byte is written.
type weights struct {
	f    *file
	jobs []job
	end  int64
	half bool // floating point numbers are stored as fp16
}

// floats gives rows of n floating point numbers a place.
func (w *weights) floats(rows, n int) region {
	if !w.half {
		return w.reserve(rows, 4*n)
	}
	r := w.reserve(rows, 2*n)
	r.half = true
	return r
}

// reserve gives rows*rowBytes bytes a place.
func (w *weights) reserve(rows, rowBytes int) region {
	r := region{offset: (w.end + pageBytes - 1) / pageBytes * pageBytes, rowBytes: rowBytes}
	w.end = r.offset + int64(rows)*int64(rowBytes)
	return r
}

// source is a tensor, or the rows of one that a packed matrix is made of.
// head is not zero where rows must leave GGUF's rotary order, head by head.
type source struct {
	t    *tensor
	head int
}

// order returns which row of the source is row i of the result. llama.cpp's
// converter stores the rows of Q and K so that the two numbers which a
// rotation mixes are neighbours; ONNX Runtime's rotary embedding (not
// interleaved) wants them half a head apart, as the original checkpoint had.
func (s source) order(i int) int {
	if s.head == 0 {
		return i
	}
	first, at, half := i/s.head*s.head, i%s.head, s.head/2
	return first + at%half*2 + at/half
}

// add plans the conversion of stacked tensors of one type into regions.
func (w *weights) add(enc encoder, regions []region, srcs ...source) {
	first := 0
	for _, s := range srcs {
		at := make([]region, len(regions))
		for i, r := range regions {
			at[i] = region{r.offset + int64(first)*int64(r.rowBytes), r.rowBytes, r.half}
		}
		unit := max(1, s.head) // a head is permuted as a whole
		w.jobs = append(w.jobs, job{
			rows: s.t.rows(), regions: at, fill: w.convert(s, enc),
			step: unit * max(1, stepBytes/(unit*s.t.rowBytes())),
		})
		first += s.t.rows()
	}
}

func (w *weights) convert(s source, enc encoder) func(int, int, [][]byte) error {
	size := s.t.rowBytes()
	return func(first, n int, bufs [][]byte) error {
		raw := make([]byte, n*size)
		if _, err := w.f.r.ReadAt(raw, s.t.offset+int64(first)*int64(size)); err != nil && err != io.EOF {
			return fmt.Errorf("read tensor %s: %w", s.t.name, err)
		}
		parts := make([][]byte, len(bufs))
		for i := range n {
			for p, b := range bufs {
				per := len(b) / n
				parts[p] = b[i*per : (i+1)*per]
			}
			from := s.order(i) * size
			enc(raw[from:from+size], parts)
		}
		return nil
	}
}

// rotary plans one of the two tables that GroupQueryAttention looks up.
func (w *weights) rotary(r region, positions int, freqs []float64, fn func(float64) float64) {
	w.jobs = append(w.jobs, job{
		rows: positions, step: max(1, stepBytes/r.rowBytes), regions: []region{r},
		fill: func(first, n int, bufs [][]byte) error {
			out := bufs[0]
			for pos := first; pos < first+n; pos++ {
				for _, f := range freqs {
					putFloat(out, float32(fn(float64(pos)*f)))
					out = out[4:]
				}
			}
			return nil
		},
	})
}

// write carries the plan out.
func (w *weights) write(ctx context.Context, out io.WriterAt, progress func(done, total int64)) error {
	var done, total int64
	for _, j := range w.jobs {
		for _, r := range j.regions {
			total += int64(j.rows) * int64(r.rowBytes)
		}
	}
	for _, j := range w.jobs {
		for first := 0; first < j.rows; first += j.step {
			if err := ctx.Err(); err != nil {
				return err
			}
			n, err := j.do(out, first)
			if err != nil {
				return err
			}
			done += n
			if progress != nil {
				progress(done, total)
			}
		}
	}
	return nil
}

func (j job) do(out io.WriterAt, first int) (written int64, err error) {
	n := min(j.step, j.rows-first)
	bufs := make([][]byte, len(j.regions))
	for i, r := range j.regions {
		bufs[i] = make([]byte, n*r.fillBytes())
	}
	if err := j.fill(first, n, bufs); err != nil {
		return 0, err
	}
	for i, r := range j.regions {
		if r.half {
			if bufs[i], err = narrow(bufs[i]); err != nil {
				return 0, err
			}
		}
		if _, err := out.WriteAt(bufs[i], r.offset+int64(first)*int64(r.rowBytes)); err != nil {
			return 0, fmt.Errorf("write weights: %w", err)
		}
		written += int64(len(bufs[i]))
	}
	return written, nil
}

// rotaryTables are computed in float64 and rounded once.
var rotaryTables = []struct {
	name string
	fn   func(float64) float64
}{{"cos_cache", math.Cos}, {"sin_cache", math.Sin}}
