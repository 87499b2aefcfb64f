package jobs

import (
	"bufio"
	"bytes"
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"io"
	"net/http"

	"infer/internal/openai"
)

// line is one request of a batch file.
type line struct {
	CustomID string         `json:"custom_id"`
	Method   string         `json:"method"`
	URL      string         `json:"url"`
	Body     jsontext.Value `json:"body"`
}

// result is one line of an output or error file.
type result struct {
	ID       string        `json:"id"`
	CustomID string        `json:"custom_id"`
	Response *lineResponse `json:"response"` // null when nothing answered
	Error    *lineError    `json:"error"`    // null when something did
}

// maxLineBytes bounds one request of a file: what the server takes as a body,
// with its pictures.
const maxLineBytes = 33 << 20

// errLineTooLong is what lines returns for a line over maxLineBytes.
var errLineTooLong = errors.New("the line is too long")

// lines calls each with the number, from 1, and the text of every line that is
// not blank, valid during the call.
func lines(r io.Reader, each func(number int, text []byte) error) error {
	br := bufio.NewReaderSize(r, 64<<10)
	var long []byte
	for number := 1; ; number++ {
		long = long[:0]
		text, err := br.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) {
			if long = append(long, text...); len(long) > maxLineBytes {
				return fmt.Errorf("line %d: %w", number, errLineTooLong)
			}
			text, err = br.ReadSlice('\n')
		}
		if len(long) > 0 {
			long = append(long, text...)
			text = long
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("read line %d: %w", number, err)
		}
		if number == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff"))
		}
		if text = bytes.TrimSpace(text); len(text) > 0 {
			if err := each(number, text); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// parseLine reads one request. endpoint is the path that all of a batch ask, or
// empty when each may ask its own.
func parseLine(text []byte, endpoint string) (line, *openai.Error) {
	var l line
	if err := json.Unmarshal(text, &l, json.RejectUnknownMembers(true)); err != nil {
		var semantic *json.SemanticError
		if errors.As(err, &semantic) && semantic.JSONPointer != "" {
			return l, wrong(err)
		}
		return l, openai.Invalid("", openai.CodeInvalidJSON, "the line is not one JSON object; write each request on a line of its own")
	}
	switch {
	case l.CustomID == "":
		return l, openai.Invalid("custom_id", openai.CodeMissingField, "custom_id is required: your own name of the request")
	case len(l.CustomID) > 512:
		return l, openai.Invalid("custom_id", openai.CodeInvalidValue, "custom_id is longer than 512 bytes")
	case l.Method != http.MethodPost:
		return l, openai.Invalid("method", openai.CodeInvalidValue, "method must be POST")
	case endpoint != "" && l.URL != endpoint:
		return l, openai.Invalid("url", openai.CodeInvalidValue, "url must be the endpoint of the batch, %s", endpoint)
	case len(l.Body) == 0:
		return l, openai.Invalid("body", openai.CodeMissingField, "body is required: what would be sent to url")
	}
	return l, checkBody(l.URL, "body", l.Body)
}

// batchFault is one fault of a batch's input.
type batchFault struct {
	Code    string  `json:"code"`
	Message string  `json:"message"`
	Param   *string `json:"param"`
	Line    *int    `json:"line"`
}

func faultOf(number int, e *openai.Error) batchFault {
	f := batchFault{Code: e.Code, Message: e.Message}
	if e.Param != "" {
		f.Param = &e.Param
	}
	if number > 0 {
		f.Line = &number
	}
	return f
}

// maxFaultsTold bounds how many faults of one file are told.
const maxFaultsTold = 100

// size is how long a file of requests is.
type size struct {
	requests int
	last     int // number of the last line with a request
}

// checkLines reads a whole file of requests and returns what is wrong with
// them. most bounds how many there may be, unless it is 0.
func checkLines(r io.Reader, endpoint string, most int) (sum size, faults []batchFault, err error) {
	seen := map[string]int{}
	err = lines(r, func(number int, text []byte) error {
		sum.last = number
		if sum.requests++; most > 0 && sum.requests > most {
			faults = append(faults, faultOf(number, openai.Invalid("", openai.CodeTooLarge,
				"the file has more than %d lines; split it into several batches", most)))
			return io.EOF
		}
		l, e := parseLine(text, endpoint)
		if e == nil {
			if first := seen[l.CustomID]; first != 0 {
				e = openai.Invalid("custom_id", "duplicate_custom_id", "custom_id is that of line %d, too; every request needs its own", first)
			}
			seen[l.CustomID] = number
		}
		if e != nil {
			if faults = append(faults, faultOf(number, e)); len(faults) == maxFaultsTold {
				return io.EOF
			}
		}
		return nil
	})
	switch {
	case err == io.EOF: // enough was seen
		err = nil
	case errors.Is(err, errLineTooLong):
		faults = append(faults, faultOf(0, openai.Invalid("", openai.CodeTooLarge, "%v; a line may have %d bytes", err, maxLineBytes)))
		err = nil
	}
	if err == nil && sum.requests == 0 && len(faults) == 0 {
		faults = append(faults, faultOf(0, openai.Invalid("", openai.CodeInvalidValue, "the file has no request; write one a line")))
	}
	return sum, faults, err
}
