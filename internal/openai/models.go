package openai

// ModelObject describes one served model.
type ModelObject struct {
	ID          string `json:"id"`
	Object      string `json:"object"` // always "model"
	Created     int64  `json:"created"`
	OwnedBy     string `json:"owned_by"`
	MaxModelLen int    `json:"max_model_len,omitzero"` // vLLM's extension: prompt plus completion
}

// ModelList is the answer of GET /v1/models.
type ModelList struct {
	Object string        `json:"object"` // always "list"
	Data   []ModelObject `json:"data"`
}
