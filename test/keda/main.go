// Command keda asks KEDA's own scalers, without a cluster. It reads triggers as
// JSON lines from standard input, and answers each with one line: what KEDA
// would put into the HPA, and what it would then report.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/kedacore/keda/v2/pkg/scalers"
	"github.com/kedacore/keda/v2/pkg/scalers/scalersconfig"
	v2 "k8s.io/api/autoscaling/v2"
)

// trigger is one trigger of a ScaledObject.
type trigger struct {
	Type       string            `json:"type"`
	MetricType string            `json:"metricType"`
	Metadata   map[string]string `json:"metadata"`
}

// answer is what KEDA makes of a trigger.
type answer struct {
	MetricType string  `json:"metricType"`
	Target     float64 `json:"target"`
	Value      float64 `json:"value"`
	Active     bool    `json:"active"`
	Error      string  `json:"error,omitempty"`
}

func main() {
	dec, enc := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var t trigger
		if err := dec.Decode(&t); err == io.EOF {
			return
		} else if err != nil {
			fmt.Fprintf(os.Stderr, "keda: read a trigger: %v\n", err)
			os.Exit(1)
		}
		a, err := ask(t)
		if err != nil {
			a.Error = err.Error()
		}
		if err := enc.Encode(a); err != nil {
			fmt.Fprintf(os.Stderr, "keda: write an answer: %v\n", err)
			os.Exit(1)
		}
	}
}

func ask(t trigger) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	s, err := build(t)
	if err != nil {
		return answer{}, err
	}
	defer s.Close(ctx)
	specs := s.GetMetricSpecForScaling(ctx)
	if len(specs) != 1 {
		return answer{}, fmt.Errorf("%d metrics, want one", len(specs))
	}
	target := specs[0].External.Target
	a := answer{MetricType: string(target.Type)}
	if target.Value != nil {
		a.Target = target.Value.AsApproximateFloat64()
	}
	if target.AverageValue != nil {
		a.Target = target.AverageValue.AsApproximateFloat64()
	}
	values, active, err := s.GetMetricsAndActivity(ctx, specs[0].External.Metric.Name)
	if err != nil {
		return a, err
	}
	for _, v := range values {
		a.Value += v.Value.AsApproximateFloat64()
	}
	a.Active = active
	return a, nil
}

func build(t trigger) (scalers.Scaler, error) {
	cfg := &scalersconfig.ScalerConfig{
		ScalableObjectName: "infer", ScalableObjectNamespace: "default", ScalableObjectType: "ScaledObject",
		TriggerType: t.Type, TriggerMetadata: t.Metadata, MetricType: v2.MetricTargetType(t.MetricType),
		GlobalHTTPTimeout: 20 * time.Second, TriggerUniqueKey: t.Type,
	}
	switch t.Type {
	case "prometheus":
		return scalers.NewPrometheusScaler(cfg)
	case "metrics-api":
		return scalers.NewMetricsAPIScaler(cfg, nil)
	case "external":
		return scalers.NewExternalScaler(cfg)
	default:
		return nil, fmt.Errorf("no scaler %q here", t.Type)
	}
}
