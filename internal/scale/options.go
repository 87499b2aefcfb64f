package scale

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// options are what the trigger of a ScaledObject may set.
type options struct {
	target     float64 // saturation that one replica should have; 1 is full
	activation float64 // saturation above which there is work at all
}

// ofKEDA are the keys that KEDA reads itself and passes on.
var ofKEDA = []string{"scalerAddress", "tlsCertFile", "tlsClientCert", "tlsClientKey", "caCert", "enableTLS", "unsafeSsl"}

// parseOptions reports every fault of a trigger's metadata at once, as a gRPC
// error that KEDA writes to its log and to the events of the ScaledObject.
func parseOptions(metadata map[string]string) (options, error) {
	opts := options{target: 1}
	var faults []error
	for key, text := range metadata {
		switch key {
		case "target":
			v, err := number(text)
			if err == nil && v <= 0 {
				err = errors.New("must be above 0")
			}
			opts.target = v
			faults = append(faults, fault(key, text, err))
		case "activation":
			v, err := number(text)
			if err == nil && v < 0 {
				err = errors.New("must not be negative")
			}
			opts.activation = v
			faults = append(faults, fault(key, text, err))
		default:
			if !slices.Contains(ofKEDA, strings.TrimSuffix(key, "FromEnv")) {
				faults = append(faults, fmt.Errorf("metadata %s: is unknown; target and activation are the options", key))
			}
		}
	}
	faults = slices.DeleteFunc(faults, func(err error) bool { return err == nil })
	if len(faults) == 0 {
		return opts, nil
	}
	slices.SortFunc(faults, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return opts, status.Error(codes.InvalidArgument, errors.Join(faults...).Error())
}

// number parses a finite number.
func number(text string) (float64, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
		return 0, errors.New("is not a number such as 0.8")
	}
	return v, nil
}

func fault(key, text string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("metadata %s: %q %w", key, text, err)
}
