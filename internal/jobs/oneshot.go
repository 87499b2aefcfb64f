package jobs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json/v2"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"

	"infer/internal/openai"
)

// Errors of a OneShot that callers branch on.
var (
	ErrInput = errors.New("the batch cannot be run as it is") // the input or the output file is at fault
	ErrLeft  = errors.New("some requests have no answer yet") // run again to go on
)

// OneShot is a file of requests that is run once, without a store: the output
// file itself says what is done.
type OneShot struct {
	In, Out  string // paths; Out may hold the results of an earlier run
	Parallel int
	Progress func(Tally) // called after every result, by one goroutine at a time; may be nil
}

// Tally counts the requests of a OneShot.
type Tally struct {
	Total     int
	Earlier   int // answered by an earlier run
	Succeeded int // by this run
	Failed    int // by this run, with an answer that is final
	Left      int // without an answer
}

// Done is how many requests have an answer.
func (t Tally) Done() int { return t.Earlier + t.Succeeded + t.Failed }

// Run sends every request that has no answer yet to h, and appends the answers.
// What the server cannot take now is sent again for as long as ctx lives; what
// the engine fails on three times is left for another run, which is ErrLeft.
func (o OneShot) Run(ctx context.Context, h http.Handler) (Tally, error) {
	in, err := os.Open(o.In)
	if err != nil {
		return Tally{}, fmt.Errorf("%w: %w", ErrInput, err)
	}
	defer func() { _ = in.Close() }() // it was only read
	sum, faults, err := checkLines(in, "", 0)
	if err != nil {
		return Tally{}, fmt.Errorf("%w: %w", ErrInput, err)
	}
	if len(faults) > 0 {
		return Tally{}, fmt.Errorf("%w: %s: %s", ErrInput, o.In, tellFaults(faults))
	}
	out, done, err := openOutput(o.Out)
	if err != nil {
		return Tally{}, err
	}
	r := &shot{o: o, out: out, tally: Tally{Total: sum.requests}}
	if r.end, err = out.Seek(0, io.SeekCurrent); err == nil {
		_, err = in.Seek(0, io.SeekStart)
	}
	if err == nil {
		err = r.run(ctx, h, in, done)
	}
	if err = errors.Join(err, out.Sync(), out.Close()); err != nil {
		return r.tally, err
	}
	if r.tally.Left = r.tally.Total - r.tally.Done(); r.tally.Left > 0 {
		return r.tally, ErrLeft
	}
	return r.tally, nil
}

func tellFaults(faults []batchFault) string {
	var told []string
	for _, f := range faults {
		text := f.Message
		if f.Line != nil {
			text = fmt.Sprintf("line %d: %s", *f.Line, f.Message)
		}
		told = append(told, text)
	}
	return strings.Join(told, "\n")
}

// openOutput opens the file of results and returns whose they are. A last line
// that a kill has cut short is removed.
func openOutput(path string) (*os.File, map[string]bool, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrInput, err)
	}
	fail := func(err error) (*os.File, map[string]bool, error) {
		_ = f.Close() // the first error says more
		return nil, nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fail(fmt.Errorf("%w: %s is written by another process; wait for it, or name another file", ErrInput, path))
	}
	done, end := map[string]bool{}, int64(0)
	for br, number := bufio.NewReader(f), 1; ; number++ {
		text, err := br.ReadBytes('\n')
		if err == io.EOF { // nothing, or half a line
			break
		} else if err != nil {
			return fail(fmt.Errorf("read %s: %w", path, err))
		}
		var res result
		if err := json.Unmarshal(text, &res); err != nil || res.CustomID == "" {
			return fail(fmt.Errorf("%w: line %d of %s is no result of a batch; name another output file", ErrInput, number, path))
		}
		done[res.CustomID] = true
		end += int64(len(text))
	}
	if err := f.Truncate(end); err != nil {
		return fail(fmt.Errorf("repair %s: %w", path, err))
	}
	if _, err := f.Seek(end, io.SeekStart); err != nil {
		return fail(fmt.Errorf("repair %s: %w", path, err))
	}
	return f, done, nil
}

// shot is a OneShot that runs.
type shot struct {
	o OneShot

	mu    sync.Mutex
	out   output
	end   int64 // of the last whole line
	torn  error // why the file ends with half a line, after which nothing is written
	tally Tally
}

// output is what a shot needs of its file.
type output interface {
	io.WriteSeeker
	Truncate(size int64) error
}

// write appends a line. Half a line, of a disk that is full, is removed again:
// the line of another request may still find room, and would join it.
func (s *shot) write(line []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.torn != nil {
		return s.torn
	}
	n, err := s.out.Write(line)
	if err == nil {
		s.end += int64(n)
		return nil
	}
	if s.torn = s.out.Truncate(s.end); s.torn == nil {
		_, s.torn = s.out.Seek(s.end, io.SeekStart)
	}
	return errors.Join(err, s.torn)
}

func (s *shot) run(ctx context.Context, h http.Handler, in io.Reader, done map[string]bool) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	room := make(chan struct{}, max(s.o.Parallel, 1))
	var wg sync.WaitGroup
	err := lines(in, func(number int, text []byte) error {
		l, e := parseLine(text, "")
		if e != nil {
			return fmt.Errorf("%w: %s changed while it was read", ErrInput, s.o.In)
		}
		if done[l.CustomID] {
			s.count(func(t *Tally) { t.Earlier++ })
			return nil
		}
		l.Body = bytes.Clone(l.Body)
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		wg.Go(func() {
			defer func() { <-room }()
			if err := s.one(ctx, h, number, l); err != nil {
				stop(err)
			}
		})
		return nil
	})
	wg.Wait()
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

// one asks for one line and writes the answer, if it is final.
func (s *shot) one(ctx context.Context, h http.Handler, number int, l line) error {
	a, err := askUntil(ctx, h, l)
	if err != nil || a.broken() {
		return err
	}
	b, err := json.Marshal(result{ID: fmt.Sprintf("batch_req_%d", number), CustomID: l.CustomID,
		Response: &lineResponse{a.status, a.requestID, asJSON(a.body)}})
	if err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	if err := s.write(append(b, '\n')); err != nil {
		return fmt.Errorf("write result: %w; free some space and run the command again, which goes on from here", err)
	}
	s.count(func(t *Tally) {
		if a.status >= 400 {
			t.Failed++
		} else {
			t.Succeeded++
		}
	})
	return nil
}

func (s *shot) count(add func(*Tally)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add(&s.tally)
	if s.o.Progress != nil {
		s.o.Progress(s.tally)
	}
}

// askUntil asks until there is an answer that is final, or the engine has
// failed maxFaults times, which is the last answer then.
func askUntil(ctx context.Context, h http.Handler, l line) (answer, error) {
	for faults := 0; ; {
		a := ask(ctx, h, l.URL, l.Body)
		if ctx.Err() != nil {
			return a, context.Cause(ctx)
		}
		if a.broken() {
			faults++
		}
		if !a.busy() && (!a.broken() || faults == maxFaults) {
			return a, nil
		}
		if err := wait(ctx, a.pause()); err != nil {
			return a, err
		}
	}
}

// Remote returns a handler that asks a running server, to which key is sent
// unless it is empty. A server that cannot be reached has answered 502.
func Remote(base, key string, client *http.Client) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, err := send(r, base, key, client)
		if err != nil {
			openai.WriteError(w, &openai.Error{Status: http.StatusBadGateway, Type: openai.TypeServer, Code: openai.CodeBrokeOff,
				Message: "the server cannot be reached"})
			return
		}
		defer func() { _ = resp.Body.Close() }() // it was only read
		for _, name := range []string{"X-Request-Id", "Retry-After", "Content-Type"} {
			if v := resp.Header.Get(name); v != "" {
				w.Header().Set(name, v)
			}
		}
		w.WriteHeader(resp.StatusCode)
		if _, err := io.Copy(w, resp.Body); err != nil {
			panic(http.ErrAbortHandler) // half an answer must not look whole
		}
	})
}

func send(r *http.Request, base, key string, client *http.Client) (*http.Response, error) {
	out, err := http.NewRequestWithContext(r.Context(), r.Method, base+r.URL.Path, r.Body)
	if err != nil {
		return nil, err
	}
	out.ContentLength = r.ContentLength
	out.Header.Set("Content-Type", "application/json")
	if key != "" {
		out.Header.Set("Authorization", "Bearer "+key)
	}
	return client.Do(out)
}
