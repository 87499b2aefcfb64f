package jobs

import (
	"context"
	"time"
)

// endWithoutInput ends a batch whose input is gone. What was answered becomes
// the result; the other lines nobody knows any more.
func (s *Service) endWithoutInput(ctx context.Context, h *holding) error {
	t, err := s.persist(ctx, h.key, func(t *task) error { return t.renew(h.holder, time.Now()) })
	if err != nil {
		return err
	}
	sum, err := s.writeResults(ctx, t, func(add func(result) error) error {
		for number := range t.Batch.Last + 1 {
			res, err := s.told(ctx, t, number, nil, lineError{})
			if err == nil && res.CustomID != "" { // else it has no result
				err = add(res)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if s.finish(ctx, h, func(t *task) {
		b := t.Batch
		b.reject(time.Now(), batchFault{Code: "input_lost", Message: "the input file was deleted or has expired; what had been answered is in the files of the batch"})
		b.Completed, b.Failed, b.Output, b.Errors = sum.completed, sum.failed, sum.output, sum.errors
	}) {
		s.forgetLines(ctx, t)
	}
	return nil
}
