package jobs

import "context"

type response struct{}

func (r *response) fail(t *task, code, message string) {}

func (s *Service) runResponse(ctx context.Context, h *holding, t *task) {}
