package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// event is what the benchmark reads of one server-sent event of a completion.
type event struct {
	Text   string
	Finish string // set on the last event of the choice
	Tokens int    // of the whole completion, set on the usage event
	Cached int    // of the prompt's tokens, set on the usage event
}

// maxEvent bounds one line of a stream.
const maxEvent = 1 << 20

// readStream calls each for every event up to the end of the stream, which is
// an error before the wire's own end mark.
func readStream(r io.Reader, each func(event)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		data, ok := bytes.CutPrefix(lines.Bytes(), []byte("data: "))
		if !ok {
			continue
		}
		if string(data) == "[DONE]" {
			return nil
		}
		e, err := parseEvent(data)
		if err != nil {
			return err
		}
		each(e)
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read stream: %w", err)
	}
	return errors.New("the stream ended without [DONE]; see the server's log above")
}

func parseEvent(data []byte) (event, error) {
	var body struct {
		Choices []struct {
			Text   string  `json:"text"`
			Finish *string `json:"finish_reason"`
		} `json:"choices"`
		Usage *struct {
			Tokens int `json:"completion_tokens"`
			Prompt struct {
				Cached int `json:"cached_tokens"`
			} `json:"prompt_tokens_details"`
		} `json:"usage"`
		Error *struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(data, &body); err != nil {
		return event{}, fmt.Errorf("parse event: %w", err)
	}
	if body.Error != nil {
		return event{}, fmt.Errorf("server: %s", body.Error.Message)
	}
	var e event
	if body.Usage != nil {
		e.Tokens, e.Cached = body.Usage.Tokens, body.Usage.Prompt.Cached
	}
	if len(body.Choices) > 0 {
		e.Text = body.Choices[0].Text
		if f := body.Choices[0].Finish; f != nil {
			e.Finish = *f
		}
	}
	return e, nil
}

// window says when to measure concurrent streams: from the moment all of them
// decode until they have had steps tokens each on average. Before and after,
// other streams prefill or the batch is smaller.
type window struct {
	streams, steps int
	started        map[int]bool
	counted        int
}

// add takes the arrival of a token. The one that begins the window is not
// counted, since its computation lies before.
func (w *window) add(stream int) (begins, ends bool) {
	if len(w.started) == w.streams {
		w.counted++
		return false, w.counted == w.tokens()
	}
	if w.started == nil {
		w.started = map[int]bool{}
	}
	w.started[stream] = true
	return len(w.started) == w.streams, false
}

func (w *window) tokens() int { return w.streams * w.steps }
