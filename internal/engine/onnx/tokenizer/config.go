package tokenizer

import (
	"encoding/json/jsontext"
	"encoding/json/v2"
	"fmt"
)

// component is any of the four configurable parts of a tokenizer.json: the
// union of the members that the supported types have.
type component struct {
	Type string `json:"type"`

	// Sequences nest their parts under a name of their own.
	Normalizers   []component `json:"normalizers"`
	PreTokenizers []component `json:"pretokenizers"`
	Processors    []component `json:"processors"`
	Decoders      []component `json:"decoders"`

	AddPrefixSpace   *bool   `json:"add_prefix_space"`
	UseRegex         *bool   `json:"use_regex"`
	IndividualDigits bool    `json:"individual_digits"`
	Pattern          pattern `json:"pattern"`
	Behavior         string  `json:"behavior"`
	Invert           bool    `json:"invert"`

	Single        []templatePiece            `json:"single"`
	SpecialTokens map[string]templateSpecial `json:"special_tokens"`
}

// pattern is what a Split looks for.
type pattern struct {
	Regex  *string
	String *string
}

// templatePiece is a special token or the place of the text.
type templatePiece struct {
	SpecialToken *struct {
		ID string `json:"id"`
	}
	Sequence *struct {
		ID string `json:"id"`
	}
}

type templateSpecial struct {
	IDs []int32 `json:"ids"`
}

// maxParts bounds how many parts one setting may have, however nested.
const maxParts = 16

// parts reads a setting and flattens its sequences; null has no parts.
func parts(setting string, v jsontext.Value) ([]component, error) {
	if len(v) == 0 || v.Kind() == jsontext.KindNull {
		return nil, nil
	}
	var c component
	if err := json.Unmarshal(v, &c); err != nil {
		return nil, fmt.Errorf("%s: %w; fetch the file again", setting, err)
	}
	flat := flatten(nil, c)
	if len(flat) > maxParts {
		return nil, fmt.Errorf("%s: %d parts are too many, only %d are supported", setting, len(flat), maxParts)
	}
	return flat, nil
}

func flatten(dst []component, c component) []component {
	if c.Type != "Sequence" {
		return append(dst, c)
	}
	for _, list := range [][]component{c.Normalizers, c.PreTokenizers, c.Processors, c.Decoders} {
		for _, part := range list {
			dst = flatten(dst, part)
		}
	}
	return dst
}

func unsupported(setting string, c component, supported string) error {
	return fmt.Errorf("%s %q is not supported, only %s; choose a model with a byte-level BPE tokenizer",
		setting, c.Type, supported)
}

// normalizer returns nil when the text is taken as it is.
func normalizer(v jsontext.Value) (func(string) string, error) {
	list, err := parts("normalizer", v)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	for _, c := range list {
		if c.Type != "NFC" {
			return nil, unsupported("normalizer", c, "NFC or none")
		}
	}
	return composeNFC, nil // doing it again changes nothing
}

// preTokenizer returns the stages, the last of which is always ByteLevel.
func preTokenizer(v jsontext.Value) ([]stage, error) {
	const setting = "pre_tokenizer"
	list, err := parts(setting, v)
	if err != nil {
		return nil, err
	}
	var stages []stage
	for i, c := range list {
		var st stage
		switch c.Type {
		case "ByteLevel":
			if i != len(list)-1 {
				return nil, fmt.Errorf("%s: %q after ByteLevel is not supported, it must come last", setting, list[i+1].Type)
			}
			st.prefixSpace = isNot(c.AddPrefixSpace, false)
			if isNot(c.UseRegex, false) {
				st.cut = newGPT2()
			}
		case "Digits":
			st.cut = cutDigits(c.IndividualDigits)
		case "Split":
			if st.cut, err = splitCutter(c); err != nil {
				return nil, err
			}
		default:
			return nil, unsupported(setting, c, "Split, Digits and ByteLevel")
		}
		stages = append(stages, st)
	}
	if len(list) == 0 || list[len(list)-1].Type != "ByteLevel" {
		return nil, fmt.Errorf("%s: it does not end in ByteLevel; choose a model with a byte-level BPE tokenizer", setting)
	}
	return stages, nil
}

// isNot reports whether an optional boolean, true by default, is not b.
func isNot(v *bool, b bool) bool {
	if v == nil {
		return !b
	}
	return *v != b
}

func splitCutter(c component) (cutter, error) {
	if c.Pattern.Regex == nil {
		return nil, fmt.Errorf("pre_tokenizer Split on a fixed string is not supported; choose a model of the GPT-2, Llama 3 or Qwen 2 family")
	}
	cut := cutterFor(*c.Pattern.Regex)
	if cut == nil {
		return nil, fmt.Errorf("pre_tokenizer Split on the pattern %q is not supported; choose a model of the GPT-2, Llama 3 or Qwen 2 family", *c.Pattern.Regex)
	}
	// Nothing lies between the matches of the known patterns, so only what
	// becomes of a match counts.
	if c.Behavior != "Isolated" || c.Invert {
		return nil, fmt.Errorf("pre_tokenizer Split with behavior %q and invert %t is not supported, only Isolated", c.Behavior, c.Invert)
	}
	return cut, nil
}

// wantByteLevelDecoder refuses every other way to join tokens.
func wantByteLevelDecoder(v jsontext.Value) error {
	list, err := parts("decoder", v)
	if err != nil {
		return err
	}
	for _, c := range list {
		if c.Type != "ByteLevel" {
			return unsupported("decoder", c, "ByteLevel")
		}
	}
	if len(list) != 1 {
		return fmt.Errorf("decoder: ByteLevel is needed, once; choose a model with a byte-level BPE tokenizer")
	}
	return nil
}

// template returns the ids that post_processor puts around a text.
func template(v jsontext.Value) (before, after []int32, err error) {
	const setting = "post_processor"
	list, err := parts(setting, v)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range list {
		switch c.Type {
		case "ByteLevel": // changes offsets only
		case "TemplateProcessing":
			b, a, err := c.around()
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %w", setting, err)
			}
			before, after = append(b, before...), append(after, a...)
		default:
			return nil, nil, unsupported(setting, c, "ByteLevel and TemplateProcessing")
		}
	}
	return before, after, nil
}

func (c component) around() (before, after []int32, err error) {
	texts := 0
	for _, p := range c.Single {
		switch {
		case p.Sequence != nil:
			texts++
		case p.SpecialToken == nil:
			return nil, nil, fmt.Errorf("a template piece is neither SpecialToken nor Sequence; fetch the file again")
		default:
			tok, ok := c.SpecialTokens[p.SpecialToken.ID]
			if !ok {
				return nil, nil, fmt.Errorf("the template's token %q is not among special_tokens; fetch the file again", p.SpecialToken.ID)
			}
			if texts == 0 {
				before = append(before, tok.IDs...)
			} else {
				after = append(after, tok.IDs...)
			}
		}
	}
	if texts != 1 {
		return nil, nil, fmt.Errorf("the template holds the text %d times, only once is supported", texts)
	}
	return before, after, nil
}
