package onnx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"infer/internal/engine"
	"infer/internal/engine/onnx/gguf"
)

// folder returns the folder to load: the model itself, or what its GGUF file
// was imported to for its device, now or at an earlier start. Every error is a
// *engine.Failure, or ctx's.
func (e *Engine) folder(ctx context.Context, dev device) (string, error) {
	src := e.cfg.Model
	if !strings.EqualFold(filepath.Ext(src), ".gguf") {
		return src, nil
	}
	o := gguf.Options{AccuracyLevel: e.cfg.AccuracyLevel, Float16: dev.cuda, Progress: e.progress(src)}
	print, err := gguf.Fingerprint(src, o)
	if err != nil {
		return "", importFailure(src, err)
	}
	base := strings.TrimSuffix(filepath.Base(src), filepath.Ext(src))
	dst := filepath.Join(e.cfg.CacheDir, base+"-"+print)
	if _, err := os.Stat(filepath.Join(dst, configFile)); err == nil {
		return dst, nil
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return "", importFailure(src, err)
	}
	began := time.Now()
	e.log.Info("importing model", "from", src, "to", dst)
	o.Progress(0, 1)
	if err := gguf.Import(ctx, src, dst, o); err != nil {
		return "", importFailure(src, err)
	}
	e.log.Info("imported model", "to", dst, "seconds", time.Since(began).Seconds())
	return dst, nil
}

// progress publishes how far the import is, at most every whole percent.
func (e *Engine) progress(src string) func(done, total int64) {
	last := int64(-1)
	return func(done, total int64) {
		if percent := 100 * done / max(total, 1); percent != last {
			last = percent
			e.publish(engine.Status{Phase: engine.Compiling, Progress: float64(percent) / 100, Detail: "importing " + src})
		}
	}
}

func importFailure(src string, err error) error {
	f := &engine.Failure{Err: err, Message: fmt.Sprintf("import %s: %v", src, err)}
	switch {
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, gguf.ErrUnsupported):
		f.Cause, f.Remedy = engine.CauseModelUnsupported, "choose a Llama-architecture GGUF of type Q4_0, Q4_1, Q8_0, F16 or F32"
	case errors.Is(err, gguf.ErrInvalid):
		f.Cause, f.Remedy = engine.CauseModelInvalid, "fetch the file again and compare its checksum"
	case errors.Is(err, syscall.ENOSPC):
		f.Cause, f.Remedy = engine.CauseDiskFull, "free space or choose another volume with --cache"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		f.Cause, f.Remedy = engine.CauseModelNotFound, "check --model and --cache and their permissions"
	default:
		f.Cause, f.Remedy = engine.CauseUnknown, "see the cause in the message"
	}
	return f
}
