// Package openai is the OpenAI wire: the error envelope, server-sent events,
// the peek into a request, usage. It does no I/O of its own and starts no
// goroutine.
package openai

import (
	"encoding/json/v2"
	"fmt"
	"net/http"
)

// Error types of the envelope. The set is closed.
const (
	TypeInvalidRequest = "invalid_request_error"
	TypeAuthentication = "authentication_error"
	TypePermission     = "permission_error"
	TypeNotFound       = "not_found_error"
	TypeRateLimit      = "rate_limit_error"
	TypeUnavailable    = "service_unavailable_error"
	TypeTimeout        = "timeout_error"
	TypeServer         = "server_error"
)

// Error codes of the envelope. The set is closed; a code says which remedy
// applies, the message says it in words.
//
//	code                     status   when
//	invalid_json             400      the body is not one JSON object
//	invalid_value            400      a field has a wrong type or an impossible value
//	missing_field            400      a required field is absent
//	unsupported_parameter    400      a field this engine does not implement
//	limit_exceeded           400      a field is over a limit of this server
//	field_not_allowed        400      a field that clients of this server may not set
//	media_not_allowed        400      a picture or sound of a kind or from a place that is not allowed
//	webhook_not_allowed      400      a webhook to a host that the operator does not name
//	media_unreadable         400      a picture or sound that is broken or cannot be fetched
//	previous_response_not_found 400   no kept response of this id, as OpenAI says it
//	context_length_exceeded  400      prompt plus asked tokens do not fit the context
//	model_not_found          404      no model of that name is served
//	route_not_found          404      no such path
//	not_found                404      no such file, batch, job or response
//	method_not_allowed       405      the path exists, the method does not
//	invalid_api_key          401      no key, or one that is not of this server
//	permission_denied        403      the key is not for this path
//	model_not_allowed        403      the key is not for this model
//	body_timeout             408      the body came too slowly
//	wrong_state              409      what is asked for has ended, or is not there yet
//	idempotency_key_reused   409      the key was used with another body
//	idempotency_key_busy     409      the first request with this key is still running
//	request_too_large        413      the body is over its limit
//	unsupported_media_type   415      the body is not JSON
//	queue_full               429      the queue is over its bound
//	rate_limit_exceeded      429      the caller's key is over a limit of its own
//	wait_too_long            429      the wait would outlast the request's deadline
//	signing_keys_unknown     503      tokens cannot be checked yet
//	engine_not_ready         503      the engine is starting or failed
//	too_many_connections     503      all connections are taken
//	draining                 503      the server is stopping
//	store_unavailable        503      what is durable can be neither read nor written
//	engine_broke_off         502      the engine broke before the first byte
//	deadline_exceeded        504      the deadline passed in the queue
//	internal_error           500      our own fault
const (
	CodeInvalidJSON      = "invalid_json"
	CodeInvalidValue     = "invalid_value"
	CodeMissingField     = "missing_field"
	CodeUnsupported      = "unsupported_parameter"
	CodeLimit            = "limit_exceeded"
	CodeFieldDenied      = "field_not_allowed"
	CodeMedia            = "media_not_allowed"
	CodeWebhook          = "webhook_not_allowed"
	CodeMediaUnreadable  = "media_unreadable"
	CodeContextLength    = "context_length_exceeded"
	CodeModelNotFound    = "model_not_found"
	CodeRouteNotFound    = "route_not_found"
	CodeNotFound         = "not_found"
	CodePreviousNotFound = "previous_response_not_found"
	CodeMethodNotAllowed = "method_not_allowed"
	CodeBodyTimeout      = "body_timeout"
	CodeWrongState       = "wrong_state"
	CodeKeyReused        = "idempotency_key_reused"
	CodeKeyBusy          = "idempotency_key_busy"
	CodeTooLarge         = "request_too_large"
	CodeMediaType        = "unsupported_media_type"
	CodeQueueFull        = "queue_full"
	CodeTooSlow          = "wait_too_long"
	CodeNotReady         = "engine_not_ready"
	CodeConnections      = "too_many_connections"
	CodeDraining         = "draining"
	CodeStore            = "store_unavailable"
	CodeBrokeOff         = "engine_broke_off"
	CodeDeadline         = "deadline_exceeded"
	CodeInternal         = "internal_error"
	CodeInvalidKey       = "invalid_api_key"
	CodeForbidden        = "permission_denied"
	CodeModelForbidden   = "model_not_allowed"
	CodeRateLimit        = "rate_limit_exceeded"
	CodeKeysUnknown      = "signing_keys_unknown"
)

// Error is one fault in the shape that OpenAI's clients parse. Phase and Cause
// are extensions for people; they are omitted when empty.
type Error struct {
	Status  int    // HTTP status; not part of the body
	Type    string // one of the Type constants
	Code    string // one of the Code constants
	Param   string // the field at fault; null on the wire when empty
	Message string // what happened and the remedy
	Phase   string // the engine's phase, with a 503
	Cause   string // why the engine failed, with a 503
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Invalid returns a 400 about one field.
func Invalid(param, code, format string, args ...any) *Error {
	return &Error{Status: http.StatusBadRequest, Type: TypeInvalidRequest, Code: code, Param: param,
		Message: fmt.Sprintf(format, args...)}
}

// Internal returns a 500. The message must not carry details of the fault;
// those belong in the log.
func Internal(message string) *Error {
	return &Error{Status: http.StatusInternalServerError, Type: TypeServer, Code: CodeInternal, Message: message}
}

// Body returns the JSON envelope. All four keys of OpenAI's error object are
// always present; param and code are null when empty, as its schema wants.
func (e *Error) Body() []byte {
	type object struct {
		Message string  `json:"message"`
		Type    string  `json:"type"`
		Param   *string `json:"param"`
		Code    *string `json:"code"`
		Phase   string  `json:"phase,omitempty"`
		Cause   string  `json:"cause,omitempty"`
	}
	opt := func(s string) *string {
		if s == "" {
			return nil
		}
		return &s
	}
	b, err := json.Marshal(map[string]object{"error": {
		Message: e.Message, Type: e.Type, Param: opt(e.Param), Code: opt(e.Code), Phase: e.Phase, Cause: e.Cause,
	}}, lenient)
	if err != nil { // strings always marshal when invalid UTF-8 is allowed
		return []byte(`{"error":{"message":"internal error","type":"server_error","param":null,"code":"internal_error"}}`)
	}
	return b
}

// WriteError answers with e. Nothing may have been written before. A writer
// with a method WriteError gives it the shape of another protocol.
func WriteError(w http.ResponseWriter, e *Error) {
	if own, ok := w.(interface{ WriteError(*Error) }); ok {
		own.WriteError(e)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Del("Content-Length")
	w.WriteHeader(e.Status)
	_, _ = w.Write(e.Body()) // the client may have left; there is nobody to tell
}
