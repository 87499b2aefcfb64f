package tokenizer

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
)

// vocabFile holds one token a line; its id is the line's number from 0.
const vocabFile = "vocab.txt"

// LoadWordPiece reads the tokenizer of a model folder: its tokenizer.json, or
// else its vocab.txt with the settings of tokenizer_config.json.
func LoadWordPiece(dir string) (*WordPiece, error) {
	path := filepath.Join(dir, fileName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return loadVocab(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read tokenizer: %w", err)
	}
	w, err := ParseWordPiece(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return w, nil
}

// wordPieceFile is the part of a tokenizer.json that matters to a WordPiece.
// Unknown members are ignored, as the original does; truncation and padding
// are habits of training.
type wordPieceFile struct {
	Added         []addedToken        `json:"added_tokens"`
	Normalizer    *bertNormalizerFile `json:"normalizer"`
	PreTokenizer  *component          `json:"pre_tokenizer"`
	PostProcessor *frameFile          `json:"post_processor"`
	Model         struct {
		Type     string           `json:"type"`
		Vocab    map[string]int32 `json:"vocab"`
		Unknown  string           `json:"unk_token"`
		Prefix   *string          `json:"continuing_subword_prefix"`
		MaxChars *int             `json:"max_input_chars_per_word"`
	} `json:"model"`
}

type bertNormalizerFile struct {
	Type         string `json:"type"`
	CleanText    bool   `json:"clean_text"`
	Chinese      bool   `json:"handle_chinese_chars"`
	StripAccents *bool  `json:"strip_accents"` // null: when lowercase
	Lowercase    bool   `json:"lowercase"`
}

// frameFile is a TemplateProcessing, or a BertProcessing, which says less.
type frameFile struct {
	Type   string      `json:"type"`
	Single []framePart `json:"single"`
	Pair   []framePart `json:"pair"`
	Tokens map[string]struct {
		IDs []int32 `json:"ids"`
	} `json:"special_tokens"`
	Sep jsontext.Value `json:"sep"` // a token and its id
	CLS jsontext.Value `json:"cls"`
}

type framePart struct {
	SpecialToken, Sequence *struct {
		ID   string `json:"id"`
		Kind int32  `json:"type_id"`
	}
}

// ParseWordPiece reads the contents of a tokenizer.json.
func ParseWordPiece(data []byte) (*WordPiece, error) {
	var f wordPieceFile
	if err := json.Unmarshal(data, &f, jsontext.AllowDuplicateNames(true)); err != nil {
		return nil, fmt.Errorf("%w; this is not the file of a WordPiece tokenizer, or it is damaged", err)
	}
	if f.Model.Type != "WordPiece" {
		return nil, fmt.Errorf("model type %q is not supported here, only WordPiece is; choose a model of the BERT family", f.Model.Type)
	}
	w := &WordPiece{vocab: f.Model.Vocab, maxChars: 100}
	prefix := "##"
	if f.Model.Prefix != nil {
		prefix = *f.Model.Prefix
	}
	if f.Model.MaxChars != nil {
		w.maxChars = *f.Model.MaxChars
	}
	var errs [3]error
	errs[0] = w.setNormalizer(f.Normalizer)
	if f.PreTokenizer == nil || f.PreTokenizer.Type != "BertPreTokenizer" {
		errs[1] = errors.New("pre_tokenizer: only BertPreTokenizer is supported; choose a model of the BERT family")
	}
	errs[2] = w.setFrames(f.PostProcessor)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	return w, w.finish(f.Model.Unknown, prefix, f.Added)
}

func (w *WordPiece) setNormalizer(f *bertNormalizerFile) error {
	if f == nil {
		return nil
	}
	if f.Type != "BertNormalizer" {
		return fmt.Errorf("normalizer: type %q is not supported, only BertNormalizer is; choose a model of the BERT family", f.Type)
	}
	w.normalize = bertNormalizer{clean: f.CleanText, chinese: f.Chinese, strip: f.Lowercase, lowercase: f.Lowercase}
	if f.StripAccents != nil {
		w.normalize.strip = *f.StripAccents
	}
	return nil
}

func (w *WordPiece) setFrames(f *frameFile) (err error) {
	switch {
	case f == nil:
		w.single, w.pair = []templatePart{{text: 1}}, []templatePart{{text: 1}, {text: 2, kind: 1}}
	case f.Type == "BertProcessing":
		var cls, sep int32
		if cls, err = tokenAndID(f.CLS); err == nil {
			sep, err = tokenAndID(f.Sep)
		}
		w.bertFrames(cls, sep)
	case f.Type == "TemplateProcessing":
		if w.single, err = f.parts(f.Single, 1); err == nil {
			w.pair, err = f.parts(f.Pair, 2)
		}
	default:
		return fmt.Errorf("post_processor: type %q is not supported; only TemplateProcessing and BertProcessing are", f.Type)
	}
	if err != nil {
		return fmt.Errorf("post_processor: %w; fetch the file again", err)
	}
	return nil
}

// bertFrames are [CLS] A [SEP] and [CLS] A [SEP] B [SEP].
func (w *WordPiece) bertFrames(cls, sep int32) {
	begin, end := templatePart{ids: []int32{cls}}, templatePart{ids: []int32{sep}}
	w.single = []templatePart{begin, {text: 1}, end}
	w.pair = []templatePart{begin, {text: 1}, end, {text: 2, kind: 1}, {ids: []int32{sep}, kind: 1}}
}

func tokenAndID(v jsontext.Value) (id int32, err error) {
	var both []jsontext.Value
	if err := json.Unmarshal(v, &both); err != nil || len(both) != 2 {
		return 0, errors.New("sep and cls must each be a token and its id")
	}
	return id, json.Unmarshal(both[1], &id)
}

// parts reads one template, which must hold each of its texts once.
func (f *frameFile) parts(list []framePart, texts int) ([]templatePart, error) {
	var parts []templatePart
	seen := [3]int{}
	for _, p := range list {
		switch {
		case p.SpecialToken != nil:
			special, ok := f.Tokens[p.SpecialToken.ID]
			if !ok {
				return nil, fmt.Errorf("%q is not in special_tokens", p.SpecialToken.ID)
			}
			parts = append(parts, templatePart{ids: special.IDs, kind: p.SpecialToken.Kind})
		case p.Sequence != nil:
			at := strings.Index("AB", p.Sequence.ID) + 1
			if len(p.Sequence.ID) != 1 || at == 0 || at > texts {
				return nil, fmt.Errorf("sequence %q has no place there", p.Sequence.ID)
			}
			seen[at]++
			parts = append(parts, templatePart{text: at, kind: p.Sequence.Kind})
		default:
			return nil, errors.New("a part is neither SpecialToken nor Sequence")
		}
	}
	for _, n := range seen[1 : texts+1] {
		if n != 1 {
			return nil, fmt.Errorf("a template of %d texts must hold each once", texts)
		}
	}
	return parts, nil
}

// finish derives what Encode needs from the vocabulary, and checks it.
func (w *WordPiece) finish(unknown, prefix string, added []addedToken) error {
	w.inside = make(map[string]int32, len(w.vocab))
	for token, id := range w.vocab {
		if id < 0 || id >= maxID {
			return fmt.Errorf("vocab: %q has the impossible id %d; fetch the file again", token, id)
		}
		w.size, w.longest = max(w.size, int(id)+1), max(w.longest, len(token))
		if rest, ok := strings.CutPrefix(token, prefix); ok && rest != "" {
			w.inside[rest] = id
		}
	}
	id, ok := w.vocab[unknown]
	if !ok {
		return fmt.Errorf("model: unk_token %q is not in vocab; fetch the file again", unknown)
	}
	w.unknown = id
	for i := range added {
		if err := w.add(&added[i]); err != nil {
			return fmt.Errorf("added_tokens: %q: %w; save the tokenizer again", added[i].Content, err)
		}
	}
	for _, p := range slices.Concat(w.single, w.pair) {
		for _, id := range p.ids {
			if id < 0 || int(id) >= w.size {
				return fmt.Errorf("post_processor: the template's id %d is not a token; fetch the file again", id)
			}
		}
	}
	return nil
}

// add makes Encode find tok. A token of the vocabulary keeps its id there.
func (w *WordPiece) add(tok *addedToken) error {
	if tok.Content == "" {
		return nil
	}
	if id, ok := w.vocab[tok.Content]; ok && id != tok.ID || tok.ID < 0 || tok.ID >= maxID {
		return fmt.Errorf("its id %d is not that of the vocabulary", tok.ID)
	}
	w.size = max(w.size, int(tok.ID)+1)
	m := &w.raw
	if tok.Normalized {
		if m = &w.normalized; w.normalize.apply(tok.Content) != tok.Content {
			return errors.New("text that the normalizer changes is not supported")
		}
	}
	return m.add(tok)
}

// vocabConfig is the part of tokenizer_config.json that goes with vocab.txt.
// Tokens are strings or objects, which all published files leave at the five
// names of BERT.
type vocabConfig struct {
	Lowercase    *bool `json:"do_lower_case"`
	StripAccents *bool `json:"strip_accents"`
	Chinese      *bool `json:"tokenize_chinese_chars"`
}

func loadVocab(dir string) (*WordPiece, error) {
	path := filepath.Join(dir, vocabFile)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read tokenizer: %w; the model folder needs a %s or a %s beside its graph", err, fileName, vocabFile)
	}
	var c vocabConfig
	settings, err := os.ReadFile(filepath.Join(dir, "tokenizer_config.json"))
	if err == nil {
		err = json.Unmarshal(settings, &c)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read tokenizer_config.json: %w; fetch the file again", err)
	}
	w, err := parseVocab(string(text), c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return w, nil
}

func parseVocab(text string, c vocabConfig) (*WordPiece, error) {
	or := func(b *bool, def bool) bool {
		if b != nil {
			return *b
		}
		return def
	}
	w := &WordPiece{vocab: map[string]int32{}, maxChars: 100}
	w.normalize = bertNormalizer{clean: true, chinese: or(c.Chinese, true), lowercase: or(c.Lowercase, true)}
	w.normalize.strip = or(c.StripAccents, w.normalize.lowercase)
	next := int32(0)
	for line := range strings.Lines(text) {
		w.vocab[strings.TrimRightFunc(line, unicode.IsSpace)] = next
		next++
	}
	var added []addedToken
	for _, name := range []string{"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"} {
		id, ok := w.vocab[name]
		if !ok {
			return nil, fmt.Errorf("it has no token %s; this is not the vocabulary of a BERT model", name)
		}
		added = append(added, addedToken{ID: id, Content: name, Special: true})
	}
	w.bertFrames(w.vocab["[CLS]"], w.vocab["[SEP]"])
	return w, w.finish("[UNK]", "##", added)
}
