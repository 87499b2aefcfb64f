package encoder

import (
	"cmp"
	"encoding/json/v2"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// graphs are the names under which a graph is looked for, in order.
var graphs = []string{"model.onnx", "onnx/model.onnx", "model_quantized.onnx", "onnx/model_quantized.onnx"}

// IsModel says whether dir looks like an encoder's folder: it has a graph and
// none of the files of a decoder.
func IsModel(dir string) bool {
	if _, err := os.Stat(filepath.Join(dir, "genai_config.json")); err == nil {
		return false
	}
	return findGraph(dir) != ""
}

func findGraph(dir string) string {
	for _, name := range graphs {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() {
			return name
		}
	}
	return ""
}

// settings are what a folder's files say.
//
//	file                             what is read                      when it is absent
//	modules.json                     Normalize or not                  mean pooling, normalised
//	N_Pooling/config.json            how token vectors become one      mean
//	sentence_bert_config.json        max_seq_length                    the two below
//	tokenizer_config.json            model_max_length                  config.json
//	config.json                      max_position_embeddings, labels   512 tokens, no labels
//	config_sentence_transformers.json  the default prompt              none
type settings struct {
	graph     string
	maxTokens int
	vocab     int // 0 when unknown
	pad       int64
	labels    []string
	score     Activation
	pooling   string
	normalize bool
	prompt    string
}

// Activation is what turns a classifier's logit into a score.
type Activation string

// The activations of cross-encoders.
const (
	Sigmoid  Activation = "sigmoid" // also when nothing is said
	Identity Activation = "identity"
)

// ScoreActivation is what turns the logit of a classifier of one class into a
// score.
func (s *settings) ScoreActivation() Activation { return s.score }

// defaultMaxTokens is what BERT's position table holds.
const defaultMaxTokens = 512

// configJSON is the part of config.json that matters here.
type configJSON struct {
	Architectures []string          `json:"architectures"`
	MaxPositions  int               `json:"max_position_embeddings"`
	VocabSize     int               `json:"vocab_size"`
	Pad           int64             `json:"pad_token_id"`
	NumLabels     int               `json:"num_labels"`
	Labels        map[string]string `json:"id2label"`
	Activation    string            `json:"sbert_ce_default_activation_function"`
	Sentence      struct {
		Activation string `json:"activation_fn"`
	} `json:"sentence_transformers"`
}

func readSettings(dir string) (*settings, error) {
	s := &settings{graph: findGraph(dir), pooling: "mean", normalize: true}
	if s.graph == "" {
		return nil, fmt.Errorf("%w: %s has none of %s", ErrInvalid, dir, strings.Join(graphs, ", "))
	}
	var c configJSON
	var tok struct {
		Max float64 `json:"model_max_length"` // 1e30 means that nobody set it
	}
	var bert struct {
		Max int `json:"max_seq_length"`
	}
	var st struct {
		Default string            `json:"default_prompt_name"`
		Prompts map[string]string `json:"prompts"`
	}
	for name, to := range map[string]any{"config.json": &c, "tokenizer_config.json": &tok, "sentence_bert_config.json": &bert,
		"config_sentence_transformers.json": &st} {
		if _, err := readJSON(dir, name, to); err != nil {
			return nil, err
		}
	}
	s.maxTokens = cmp.Or(c.MaxPositions, defaultMaxTokens)
	if tok.Max >= 1 && tok.Max < float64(s.maxTokens) {
		s.maxTokens = int(tok.Max)
	}
	if bert.Max > 0 {
		s.maxTokens = min(bert.Max, cmp.Or(c.MaxPositions, bert.Max))
	}
	if s.maxTokens < 8 || s.maxTokens > 1<<17 {
		return nil, fmt.Errorf("%w: a maximum of %d tokens cannot be", ErrInvalid, s.maxTokens)
	}
	s.vocab, s.pad, s.prompt = c.VocabSize, max(c.Pad, 0), st.Prompts[st.Default]
	if err := s.classes(&c); err != nil || s.labels != nil {
		return s, err
	}
	return s, s.modules(dir)
}

// classes reads what makes a folder a classifier.
func (s *settings) classes(c *configJSON) error {
	if len(c.Architectures) == 0 {
		return nil
	}
	arch := c.Architectures[0]
	switch {
	case strings.HasSuffix(arch, "ForSequenceClassification"):
	case strings.Contains(arch, "For"):
		return fmt.Errorf("%w: the architecture %s is neither an embedding model nor a sequence classifier", ErrUnsupported, arch)
	default:
		return nil
	}
	n := cmp.Or(len(c.Labels), c.NumLabels, 2) // as transformers counts
	for i := range n {
		s.labels = append(s.labels, cmp.Or(c.Labels[strconv.Itoa(i)], "LABEL_"+strconv.Itoa(i)))
	}
	s.score = Sigmoid
	switch name := cmp.Or(c.Sentence.Activation, c.Activation); {
	case strings.HasSuffix(name, ".Identity"):
		s.score = Identity
	case name != "" && !strings.HasSuffix(name, ".Sigmoid"):
		return fmt.Errorf("%w: the activation %s is neither Sigmoid nor Identity", ErrUnsupported, name)
	}
	return nil
}

// modules reads what follows the transformer.
func (s *settings) modules(dir string) error {
	var list []struct {
		Path string `json:"path"`
		Type string `json:"type"`
	}
	found, err := readJSON(dir, "modules.json", &list)
	if err != nil || !found {
		return err
	}
	s.normalize = false
	for _, m := range list {
		switch m.Type[strings.LastIndexByte(m.Type, '.')+1:] {
		case "Transformer":
		case "Normalize":
			s.normalize = true
		case "Pooling":
			if !filepath.IsLocal(m.Path) {
				return fmt.Errorf("%w: modules.json: the path %q leaves the folder", ErrInvalid, m.Path)
			}
			if err := s.readPooling(dir, filepath.Join(m.Path, "config.json")); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: modules.json: a module of type %s follows the transformer; only Pooling and Normalize may", ErrUnsupported, m.Type)
		}
	}
	return nil
}

// poolings are the modes of sentence-transformers' Pooling module by their
// flags.
var poolings = map[string]string{
	"pooling_mode_cls_token":            "cls",
	"pooling_mode_mean_tokens":          "mean",
	"pooling_mode_max_tokens":           "max",
	"pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
	"pooling_mode_weightedmean_tokens":  "weightedmean",
	"pooling_mode_lasttoken":            "lasttoken",
}

func (s *settings) readPooling(dir, name string) error {
	var c map[string]any
	if _, err := readJSON(dir, name, &c); err != nil {
		return err
	}
	var modes []string
	for flag, mode := range poolings {
		if c[flag] == true {
			modes = append(modes, mode)
		}
	}
	if mode, ok := c["pooling_mode"].(string); ok { // the newer form
		modes = []string{mode}
	}
	if len(modes) != 1 || poolers[modes[0]] == nil {
		return fmt.Errorf("%w: %s asks for the pooling modes %q; exactly one of cls, mean, max, mean_sqrt_len_tokens, weightedmean and lasttoken is supported", ErrUnsupported, name, modes)
	}
	s.pooling = modes[0]
	return nil
}

// readJSON reads a file that need not be there.
func readJSON(dir, name string, to any) (found bool, err error) {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, to)
	}
	if err != nil {
		return false, fmt.Errorf("%w: %s: %w", ErrInvalid, name, err)
	}
	return true, nil
}
