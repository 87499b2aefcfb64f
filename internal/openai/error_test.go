package openai

import (
	"errors"
	"net/http/httptest"
	"testing"
)

func TestErrorBody(t *testing.T) {
	for _, tt := range []struct {
		e    *Error
		want string
	}{
		{Internal("x"), `{"error":{"message":"x","type":"server_error","param":null,"code":"internal_error"}}`},
		{Invalid("n", CodeUnsupported, "n is %d", 3), `{"error":{"message":"n is 3","type":"invalid_request_error","param":"n","code":"unsupported_parameter"}}`},
		{&Error{Type: TypeUnavailable, Code: CodeNotReady, Message: "m", Phase: "failed", Cause: "disk_full"},
			`{"error":{"message":"m","type":"service_unavailable_error","param":null,"code":"engine_not_ready","phase":"failed","cause":"disk_full"}}`},
		{&Error{Message: "a\xffb\"\n"}, `{"error":{"message":"a` + "\ufffd" + `b\"\n","type":"","param":null,"code":null}}`},
	} {
		if got := string(tt.e.Body()); got != tt.want {
			t.Errorf("Body()\n got %s\nwant %s", got, tt.want)
		}
	}
}

func TestStream(t *testing.T) {
	w := httptest.NewRecorder()
	s := NewStream(w)
	if s.Started() {
		t.Error("started before the first event")
	}
	for _, err := range []error{s.Send(map[string]string{"a": "\n"}), s.Fail(Internal("x"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := "data: {\"a\":\"\\n\"}\n\ndata: " + string(Internal("x").Body()) + "\n\ndata: [DONE]\n\n"
	if got := w.Body.String(); got != want || !w.Flushed || !s.Started() {
		t.Errorf("stream\n got %q\nwant %q", got, want)
	}
	if ct := w.Header().Get("Content-Type"); ct != "text/event-stream; charset=utf-8" {
		t.Errorf("Content-Type = %q", ct)
	}
}

func TestStreamFailsWithAStatusBeforeTheFirstEvent(t *testing.T) {
	w := httptest.NewRecorder()
	if err := NewStream(w).Fail(Invalid("n", CodeInvalidValue, "no")); err != nil {
		t.Fatal(err)
	}
	if w.Code != 400 || w.Body.String() != string(Invalid("n", CodeInvalidValue, "no").Body()) || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("answered %d %s", w.Code, w.Body)
	}
}

type broken struct{ *httptest.ResponseRecorder }

func (broken) Write([]byte) (int, error) { return 0, errors.New("gone") }

func TestStreamReportsALostClient(t *testing.T) {
	s := NewStream(broken{httptest.NewRecorder()})
	if err := s.Send(1); err == nil {
		t.Error("Send() = nil to a client that left")
	}
	if err := s.Fail(Internal("x")); err == nil {
		t.Error("Fail() = nil to a client that left")
	}
}
