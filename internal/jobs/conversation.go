package jobs

import (
	"bytes"
	"crypto/rand"
	"encoding/json/jsontext"
	"encoding/json/v2"
)

// inputItems are the items of a request's input as OpenAI lists them: each has
// an id and a type, and a message a list of parts. ok is false when input is
// neither text nor a list of objects.
func inputItems(input []byte) (items []jsontext.Value, ok bool) {
	var text string
	if json.Unmarshal(input, &text) == nil && jsontext.Value(input).Kind() == '"' {
		item := map[string]any{"role": "user", "content": text}
		b, err := json.Marshal(item)
		if err != nil {
			return nil, false
		}
		input = append(append([]byte{'['}, b...), ']')
	}
	var list []map[string]jsontext.Value
	if len(input) == 0 || json.Unmarshal(input, &list) != nil {
		return nil, false
	}
	for _, item := range list {
		if item == nil {
			return nil, false
		}
		b, err := json.Marshal(whole(item), json.Deterministic(true))
		if err != nil {
			return nil, false
		}
		items = append(items, b)
	}
	return items, len(items) > 0
}

// whole gives an item what a client may leave out.
func whole(item map[string]jsontext.Value) map[string]jsontext.Value {
	if absentValue(item["type"]) {
		item["type"] = jsontext.Value(`"message"`)
	}
	prefix := "item_"
	switch string(item["type"]) {
	case `"message"`:
		prefix = "msg_"
		item["content"] = contentParts(item["content"], string(item["role"]))
		if absentValue(item["status"]) {
			item["status"] = jsontext.Value(`"completed"`)
		}
	case `"function_call"`:
		prefix = "fc_"
	case `"function_call_output"`:
		prefix = "fco_"
	case `"reasoning"`:
		prefix = "rs_"
	}
	if absentValue(item["id"]) {
		item["id"] = jsontext.Value(`"` + prefix + rand.Text() + `"`)
	}
	return item
}

// contentParts writes a message that is one text as a list of one part.
func contentParts(raw jsontext.Value, role string) jsontext.Value {
	if raw.Kind() != '"' {
		return raw
	}
	part := `[{"type":"input_text","text":`
	end := `}]`
	if role == `"assistant"` {
		part, end = `[{"type":"output_text","text":`, `,"annotations":[]}]`
	}
	return jsontext.Value(part + string(raw) + end)
}

func absentValue(v jsontext.Value) bool { return len(v) == 0 || v.Kind() == 'n' }

// withMember returns a JSON object with another value of one name, which is
// added when it is not there. All else stays in its order.
func withMember(object []byte, name string, value any) ([]byte, error) {
	raw, err := json.Marshal(value)
	if v, ok := value.([]byte); ok {
		raw, err = v, nil
	}
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	d, e := jsontext.NewDecoder(bytes.NewReader(object)), jsontext.NewEncoder(&out)
	tok, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	if err := e.WriteToken(tok); err != nil {
		return nil, err
	}
	written := false
	for d.PeekKind() == '"' {
		tok, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		this := tok.String() == name
		if err := e.WriteToken(tok); err != nil {
			return nil, err
		}
		v, err := d.ReadValue()
		if err != nil {
			return nil, err
		}
		if this {
			v, written = raw, true
		}
		if err := e.WriteValue(v); err != nil {
			return nil, err
		}
	}
	if !written {
		if err := e.WriteToken(jsontext.String(name)); err != nil {
			return nil, err
		}
		if err := e.WriteValue(raw); err != nil {
			return nil, err
		}
	}
	err = e.WriteToken(jsontext.EndObject)
	return bytes.TrimSpace(out.Bytes()), err
}

// statusOf is the status of a response's object.
func statusOf(object []byte) string {
	var o struct {
		Status string `json:"status"`
	}
	_ = json.Unmarshal(object, &o) // what has none is empty
	return o.Status
}
