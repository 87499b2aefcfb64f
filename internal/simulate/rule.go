package simulate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/expr-lang/expr"
	"github.com/expr-lang/expr/vm"
	"go.yaml.in/yaml/v3"
)

// The metric types of an HPA.
const (
	AverageValue = "AverageValue"
	Value        = "Value"
)

// Rule is what a ScaledObject says: a query, its target and the metric type.
type Rule struct {
	Name   string  `yaml:"name"`
	Query  string  `yaml:"query"`  // an expression over Signals
	Target float64 `yaml:"target"` // threshold of the trigger
	Type   string  `yaml:"type"`   // AverageValue, which is KEDA's own, or Value

	program *vm.Program
}

// Signals are what a query sees: one value a replica that answers a scrape,
// also while it loads or drains. Where no replica is, they are empty.
type Signals struct {
	Saturation  []float64 `expr:"saturation"`  // demand ÷ capacity
	Running     []float64 `expr:"running"`     // requests in the engine
	Waiting     []float64 `expr:"waiting"`     // requests in the queue, or held for a loading engine
	Utilization []float64 `expr:"utilization"` // of the GPU, in percent: 100 as soon as one request runs
	Slots       float64   `expr:"slots"`       // of one replica
}

// Builtin returns the four rules that are worth a comparison: the one that is
// often copied, its correction, and the two that look at requests.
func Builtin() []Rule {
	return []Rule{
		{Name: "average of utilization", Query: "len(utilization) == 0 ? 0 : mean(utilization)", Target: 80},
		{Name: "sum of utilization", Query: "sum(utilization)", Target: 80},
		{Name: "queue depth", Query: "sum(waiting)", Target: 4},
		{Name: "saturation", Query: "sum(saturation)", Target: 0.8},
	}
}

// ReadRule reads a rule from YAML with the keys name, query, target and type.
func ReadRule(text []byte) (Rule, error) {
	var r Rule
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&r); err != nil && !errors.Is(err, io.EOF) {
		return r, err
	}
	return r, r.compile()
}

// compile checks the rule and reports every fault at once.
func (r *Rule) compile() error {
	var errs []error
	if r.Name == "" {
		errs = append(errs, errors.New("name: empty"))
	}
	if !(r.Target > 0) || math.IsInf(r.Target, 0) {
		errs = append(errs, fmt.Errorf("target: must be above 0, got %v", r.Target))
	}
	switch r.Type {
	case "":
		r.Type = AverageValue
	case AverageValue, Value:
	default:
		errs = append(errs, fmt.Errorf("type: %q is not AverageValue or Value", r.Type))
	}
	var err error
	if r.program, err = expr.Compile(r.Query, expr.Env(Signals{}), expr.AsFloat64()); err != nil {
		errs = append(errs, fmt.Errorf("query: %w; the names are saturation, running, waiting, utilization (lists) and slots", err))
	}
	return errors.Join(errs...)
}

// value evaluates the query. As KEDA does with an empty answer or one that is
// no finite number, it takes those for 0.
func (r *Rule) value(machine *vm.VM, s *Signals) (float64, error) {
	out, err := machine.Run(r.program, *s)
	if err != nil {
		return 0, fmt.Errorf("rule %q: %w", r.Name, err)
	}
	v, ok := out.(float64)
	if !ok || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, nil
	}
	return v, nil
}
