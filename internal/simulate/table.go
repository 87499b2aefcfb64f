package simulate

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Table writes one line a result.
func Table(w io.Writer, results []Result) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	// Flush says whether anything could not be written.
	_, _ = fmt.Fprintln(t, "rule\ttype\ttarget\trequests\tmissed\tmissed %\tlate\trejected\tcut\tmean wait s\tGPU-seconds\treplica-seconds\tmost\t")
	for _, r := range results {
		wait := 0.0
		if r.Started > 0 {
			wait = r.WaitSeconds / float64(r.Started)
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%g\t%d\t%d\t%.3f\t%d\t%d\t%d\t%.2f\t%.0f\t%.0f\t%d\t\n", r.Rule.Name, r.Rule.Type, r.Rule.Target,
			r.Arrived, r.Missed(), percent(r.Missed(), r.Arrived), r.Late, r.Rejected, r.Cut, wait, r.GPUSeconds, r.ReplicaSeconds, r.MostReplicas)
	}
	return t.Flush()
}
