package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Config is what an operator may want otherwise. What nobody has wanted
// otherwise is a constant, see limits.go.
type Config struct {
	MaxN           int      `name:"max-n" help:"Answers to one prompt that a request may ask for with n or best_of." default:"64" env:"INFER_MAX_N"`
	MaxPrompts     int      `help:"Prompts of one completion, inputs of one embedding, documents of one ranking." default:"2048" env:"INFER_MAX_PROMPTS"`
	MaxTools       int      `help:"Tools of one request." default:"128" env:"INFER_MAX_TOOLS"`
	MaxSchemaBytes int      `help:"Bytes of one JSON schema, grammar or list of choices." default:"65536" env:"INFER_MAX_SCHEMA_BYTES"`
	AllowFields    []string `placeholder:"NAME" help:"Fields that clients may set although they reach into the engine, such as priority or chat_template." env:"INFER_ALLOW_FIELDS"`
	MaxMediaBytes  int64    `help:"Bytes of one picture or sound, decoded." default:"20971520" env:"INFER_MAX_MEDIA_BYTES"`
	MediaTypes     []string `placeholder:"TYPE" help:"Media types that a request may carry." default:"image/png,image/jpeg,image/gif,image/webp,audio/wav,audio/mpeg,audio/flac,audio/ogg" env:"INFER_MEDIA_TYPES"`
	MediaHosts     []string `placeholder:"HOST" help:"Hosts that media may be fetched from over https, as HOST, HOST:PORT or *.DOMAIN; http://HOST allows plain http. Default: none, so that media come as data: URLs only." env:"INFER_MEDIA_HOSTS"`
	MediaNetworks  []string `placeholder:"CIDR" help:"Private networks that media hosts may be in, such as 10.1.0.0/16." env:"INFER_MEDIA_NETWORKS"`
}

// Faults reports every fault at once.
func (c Config) Faults() error {
	var errs []error
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"max-n", int64(c.MaxN)}, {"max-prompts", int64(c.MaxPrompts)}, {"max-tools", int64(c.MaxTools)},
		{"max-schema-bytes", int64(c.MaxSchemaBytes)}, {"max-media-bytes", c.MaxMediaBytes},
	} {
		if f.value <= 0 {
			errs = append(errs, fmt.Errorf("%s: must be positive, got %d", f.name, f.value))
		}
	}
	for _, name := range c.AllowFields {
		if !slices.Contains(denied(), name) {
			errs = append(errs, fmt.Errorf("allow-fields: %q is not a field that is denied; those are %s", name, strings.Join(denied(), ", ")))
		}
	}
	for _, t := range c.MediaTypes {
		if _, ok := magic[t]; !ok {
			errs = append(errs, fmt.Errorf("media-types: %q is not known here; known are %s", t, strings.Join(knownTypes(), ", ")))
		}
	}
	errs = append(errs, HostFaults("media-", c.MediaHosts, c.MediaNetworks))
	return errors.Join(errs...)
}
