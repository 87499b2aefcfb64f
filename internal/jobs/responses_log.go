package jobs

import (
	"context"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"time"

	"infer/internal/store"
)

// A background response has a log beside its task: entries under numbers that
// only grow, each made once. Whoever appends to a number that exists already has
// been overtaken: by another run, whose predecessor can add nothing any more, or
// by the end. The entry with End decides how the response ended; the task
// follows it. So no sequence number is told twice, and one end.
type entry struct {
	Holder string  `json:"holder"`          // who wrote it
	Next   int     `json:"next"`            // sequence number after its events
	Events content `json:"events,omitzero"` // server-sent events, numbered up to Next
	End    bool    `json:"end,omitzero"`    // nothing follows
	Status string  `json:"status,omitzero"` // with End: of Final
	Final  content `json:"final,omitzero"`  // with End: the object
}

// firstLogged is the number of the first event in a log: response.created and
// response.queued, 0 and 1, are told from the task.
const firstLogged = 2

// responseLog is where the next entry goes.
type responseLog struct {
	s      *Service
	prefix string
	holder string // of what is appended
	index  int    // of the next entry
	next   int    // sequence number of the next event
	end    *entry // when it has ended
}

func logPrefix(t *task) string { return "log/" + ownerKey(t.Owner) + "/" + t.ID + "/" }

func logEntryKey(prefix string, i int) string { return fmt.Sprintf("%s%08d", prefix, i) }

// openLog finds the end of a response's log.
func (s *Service) openLog(ctx context.Context, t *task, holder string) (*responseLog, error) {
	l := &responseLog{s: s, prefix: logPrefix(t), holder: holder, next: firstLogged}
	last := ""
	for {
		keys, err := s.store.List(ctx, l.prefix, last, page)
		if err != nil {
			return nil, err
		}
		l.index += len(keys)
		if len(keys) > 0 {
			last = keys[len(keys)-1]
		}
		if len(keys) < page {
			break
		}
	}
	// A list may be older than what is read by key.
	for {
		en, err := s.entry(ctx, l.prefix, max(l.index-1, 0))
		switch {
		case errors.Is(err, store.ErrNotFound) && l.index == 0:
			return l, nil
		case err != nil:
			return nil, err
		}
		l.index = max(l.index, 1)
		l.next = en.Next
		if en.End {
			l.end = en
			return l, nil
		}
		if _, err := s.entry(ctx, l.prefix, l.index); errors.Is(err, store.ErrNotFound) {
			return l, nil
		} else if err != nil {
			return nil, err
		}
		l.index++
	}
}

func (s *Service) entry(ctx context.Context, prefix string, i int) (*entry, error) {
	key := logEntryKey(prefix, i)
	it, err := s.store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	var en entry
	if err := json.Unmarshal(it.Value, &en); err != nil {
		return nil, fmt.Errorf("read entry %s: %w", key, err)
	}
	return &en, nil
}

// append adds an entry with events up to next. It returns errLost when somebody
// else was first, and tries again while the store is away.
func (l *responseLog) append(ctx context.Context, events []byte, next int, en entry) error {
	en.Holder, en.Next = l.holder, next
	for pause := persistPause; ; pause = min(2*pause, 5*time.Second) {
		err := l.write(ctx, events, &en)
		if err == nil {
			l.s.followers.call(l.prefix)
			l.index, l.next = l.index+1, next
			if en.End {
				l.end = &en
			}
			return nil
		}
		if final(err) {
			return err
		}
		l.s.log.Warn("events of a response cannot be written, trying again", "log", l.prefix, "err", err)
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// write makes one try. Long events are put once for all tries.
func (l *responseLog) write(ctx context.Context, events []byte, en *entry) (err error) {
	if en.Events.Ref == nil {
		if en.Events, err = l.s.put(ctx, events, l.s.responseTTL()); err != nil {
			return err
		}
	}
	value, err := json.Marshal(en)
	if err != nil {
		return err
	}
	err = l.s.store.Create(ctx, logEntryKey(l.prefix, l.index), value, l.s.responseTTL())
	if !errors.Is(err, store.ErrConflict) {
		return err
	}
	// An earlier try of ours may have been written, whatever the store said.
	there, err := l.s.entry(ctx, l.prefix, l.index)
	if err == nil && there.Holder == l.holder && there.Next == en.Next && there.End == en.End {
		return nil
	}
	if err == nil || errors.Is(err, store.ErrNotFound) {
		return errLost
	}
	return err
}

// close appends the end of a response that did not end by itself: it has
// failed or was cancelled. initial is its object as it was accepted.
func (l *responseLog) close(ctx context.Context, t *task, status, code, message string) error {
	initial, err := l.s.get(ctx, t.Response.Initial)
	if err != nil {
		return err
	}
	object, err := withMember(initial, "status", status)
	if err == nil && message != "" {
		object, err = withMember(object, "error", map[string]string{"code": code, "message": message})
	}
	if err != nil {
		return err
	}
	var events []byte
	next := l.next
	if t.Response.Stream {
		// There is no event for a cancellation: the object in it says so.
		name := "response.incomplete"
		if status == responseFailed {
			name = "response.failed"
		}
		if events, err = eventOf(name, next, object); err != nil {
			return err
		}
		next++
	}
	return l.finish(ctx, events, next, object)
}

// finish appends the end with the whole object.
func (l *responseLog) finish(ctx context.Context, events []byte, next int, object []byte) error {
	kept, err := l.s.keepAnswer(ctx, object)
	if err != nil {
		return err
	}
	return l.append(ctx, events, next, entry{End: true, Status: statusOf(object), Final: kept})
}

// eventOf is an event that carries a response.
func eventOf(name string, number int, object []byte) ([]byte, error) {
	data, err := json.Marshal(struct {
		Type     string         `json:"type"`
		Number   int            `json:"sequence_number"`
		Response jsontext.Value `json:"response"`
	}{name, number, object})
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", name, data), nil
}

// removeLog deletes a log that has ended.
func (s *Service) removeLog(ctx context.Context, t *task) error {
	prefix := logPrefix(t)
	for {
		keys, err := s.store.List(ctx, prefix, "", page)
		if err != nil {
			return err
		}
		for i := len(keys) - 1; i >= 0; i-- {
			if err := s.store.Delete(ctx, keys[i], ""); err != nil {
				return err
			}
		}
		if len(keys) < page {
			return nil
		}
	}
}
