package serve

import (
	"net/http"
	"strconv"
	"strings"

	"infer/internal/engine"
	"infer/internal/openai"
)

// unknown is the metric label of every model name that is not served.
const unknown = "unknown"

func modelObject(m engine.Model) openai.ModelObject {
	o := openai.ModelObject{ID: m.ID, Object: "model", OwnedBy: "infer", MaxModelLen: m.ContextTokens}
	if !m.Created.IsZero() {
		o.Created = m.Created.Unix()
	}
	return o
}

// serves says under which label name is metered. No name means the canonical
// model, as vLLM reads it. While the engine does not know its models yet,
// every name passes as unknown, to be asked again once it does.
func serves(models []engine.Model, name string) (label string, err *openai.Error) {
	if len(models) == 0 {
		return unknown, nil
	}
	if name == "" {
		return models[0].ID, nil
	}
	for _, m := range models {
		if m.ID == name {
			return name, nil
		}
	}
	return unknown, modelNotFound(name, models)
}

func modelNotFound(name string, served []engine.Model) *openai.Error {
	message := "the model " + strconv.Quote(clip(name, 128)) + " is not served here"
	if len(served) > 0 {
		ids := make([]string, len(served))
		for i, m := range served {
			ids[i] = strconv.Quote(m.ID)
		}
		message += "; served: " + strings.Join(ids, ", ")
	} else {
		message += "; the engine does not know its models yet, ask again when it has started"
	}
	return &openai.Error{Status: http.StatusNotFound, Type: openai.TypeNotFound, Code: openai.CodeModelNotFound,
		Param: "model", Message: message}
}

// clip bounds text from outside.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
