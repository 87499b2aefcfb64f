package tokenizer

import (
	"bytes"
	"encoding/json/jsontext"
	jsonv2 "encoding/json/v2"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// fileName is what the Hugging Face ecosystem calls a tokenizer.
const fileName = "tokenizer.json"

// Load reads the tokenizer.json of a model folder.
func Load(dir string) (*Tokenizer, error) {
	path := filepath.Join(dir, fileName)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read tokenizer: %w; the model folder needs a %s beside its weights", err, fileName)
	}
	t, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// Parse reads the contents of a tokenizer.json.
func Parse(json []byte) (*Tokenizer, error) {
	f, err := readFile(json)
	if err != nil {
		return nil, explain(err)
	}
	return f.build()
}

// explain adds the remedy to what the JSON packages report.
func explain(err error) error {
	if _, ok := errors.AsType[*jsontext.SyntacticError](err); ok || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w; the file is damaged, fetch it again", err)
	}
	if _, ok := errors.AsType[*jsonv2.SemanticError](err); ok {
		return fmt.Errorf("%w; this is not the file of a byte-level BPE tokenizer", err)
	}
	return err
}

// file is a tokenizer.json whose large parts have been read and whose small
// parts are still text. Unknown members are ignored, as the original does.
type file struct {
	model         model
	added         jsontext.Value
	normalizer    jsontext.Value
	preTokenizer  jsontext.Value
	postProcessor jsontext.Value
	decoder       jsontext.Value
}

func readFile(data []byte) (*file, error) {
	dec := jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true))
	f := new(file)
	seen := false
	err := eachMember(dec, func(name string) error {
		switch name {
		case "version":
			return wantVersion(dec)
		case "model":
			seen = true
			f.model = model{vocab: map[string]int32{}}
			return f.model.read(dec)
		case "added_tokens":
			return keep(&f.added, dec)
		case "normalizer":
			return keep(&f.normalizer, dec)
		case "pre_tokenizer":
			return keep(&f.preTokenizer, dec)
		case "post_processor":
			return keep(&f.postProcessor, dec)
		case "decoder":
			return keep(&f.decoder, dec)
		}
		return dec.SkipValue()
	})
	if err != nil {
		return nil, err
	}
	if _, err := dec.ReadToken(); err != io.EOF {
		return nil, errors.New("there is more after the JSON object; fetch the file again")
	}
	if !seen {
		return nil, errors.New("it has no model; use the tokenizer.json that the fast tokenizer saved")
	}
	return f, nil
}

func wantVersion(dec *jsontext.Decoder) error {
	v, err := dec.ReadToken()
	if err != nil {
		return err
	}
	if s := v.String(); s != "1.0" {
		return fmt.Errorf("version %q is not supported; save it again as version 1.0", s)
	}
	return nil
}

func keep(v *jsontext.Value, dec *jsontext.Decoder) error {
	got, err := dec.ReadValue()
	*v = got.Clone()
	return err
}

// eachMember calls member for the name of each member of the object that comes
// next; member reads the value.
func eachMember(dec *jsontext.Decoder, member func(name string) error) error {
	return each(dec, jsontext.KindBeginObject, func() error {
		tok, err := dec.ReadToken()
		if err != nil {
			return err
		}
		return member(tok.String())
	})
}

// each calls element until the object or array that comes next is read.
func each(dec *jsontext.Decoder, open jsontext.Kind, element func() error) error {
	tok, err := dec.ReadToken()
	if err != nil {
		return err
	}
	if tok.Kind() != open {
		return fmt.Errorf("at %q: want %s, got %s; this is not the file of a byte-level BPE tokenizer", dec.StackPointer(), open, tok.Kind())
	}
	for {
		switch dec.PeekKind() {
		case jsontext.KindEndObject, jsontext.KindEndArray:
			_, err := dec.ReadToken()
			return err
		case jsontext.KindInvalid:
			_, err := dec.ReadToken()
			return err
		}
		if err := element(); err != nil {
			return err
		}
	}
}
