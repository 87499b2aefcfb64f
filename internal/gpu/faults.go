package gpu

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"

	"infer/internal/engine"
)

// lostAfter is how long a driver that once worked may be away. A reload takes
// seconds; a container whose device nodes were taken never gets them back.
const lostAfter = time.Minute

// resetXIDs are errors after which a GPU computes nothing right until it is
// reset: ECC, row remapping, NVLink, off the bus, uncontained memory errors,
// a GSP that does not answer (docs.nvidia.com/deploy/xid-errors). All others
// are an application's, or noise.
var resetXIDs = []uint64{48, 62, 64, 74, 79, 95, 119, 120}

// resetActions are NVML's recovery actions that ask for a reset or a reboot.
var resetActions = map[float64]string{1: "reset", 2: "reboot", 4: "drain and reset"}

// slowdowns are the reasons for lower clocks that somebody should look into.
const slowdowns = 0x8 | 0x20 | 0x40 | 0x80

// reasonNames are the bits of NVML's clocks event reasons.
var reasonNames = []struct {
	bit  uint64
	name string
}{
	{0x1, "idle"}, {0x2, "application_clocks"}, {0x4, "software_power_cap"}, {0x8, "hardware_slowdown"}, {0x10, "sync_boost"},
	{0x20, "software_thermal"}, {0x40, "hardware_thermal"}, {0x80, "power_brake"}, {0x100, "display"},
}

func gpuLost(format string, args ...any) *engine.Failure {
	// It is retryable: another replica, or this one on another node, may do it.
	return &engine.Failure{Cause: engine.CauseGPULost, Retryable: true, Message: fmt.Sprintf(format, args...),
		Remedy: "move this container to another node; the GPU needs a reset by the node's operator"}
}

// isLost says whether err is about a GPU that only a reset brings back, and
// not about a driver that may be loaded again.
func isLost(err error) bool {
	f, ok := errors.AsType[fault](err)
	return ok && (f.ret == nvml.ERROR_GPU_IS_LOST || f.ret == nvml.ERROR_RESET_REQUIRED)
}

// judge says what of a reading means that the GPU is not to be trusted, and
// warns once of what only makes it slow.
func (w *worker) judge(r reading, c *counters) *engine.Failure {
	if !known(c.ecc) {
		c.ecc = r.uncorrected
	}
	if action, ok := resetActions[r.recovery]; ok {
		return gpuLost("the driver asks for a %s of GPU %s", action, r.index)
	}
	if r.uncorrected > c.ecc {
		return gpuLost("GPU %s has %.0f new memory errors that ECC cannot correct", r.index, r.uncorrected-c.ecc)
	}
	if fresh := r.reasons & slowdowns &^ c.throttled; fresh != 0 {
		c.throttled |= fresh
		w.log.Warn("gpu is slowed down; look at its cooling and power", "gpu", r.index, "uuid", r.uuid, "reasons", names(fresh), "celsius", r.celsius)
	}
	return nil
}

func names(reasons uint64) []string {
	var all []string
	for _, r := range reasonNames {
		if reasons&r.bit != 0 {
			all = append(all, r.name)
		}
	}
	return all
}

// hear counts the XID errors, warns of each number once, and returns what
// those mean that need a reset.
func (w *worker) hear(events []xid) *engine.Failure {
	var failure *engine.Failure
	for _, x := range events {
		w.xids[x]++
		if slices.Contains(resetXIDs, x.number) {
			failure = gpuLost("XID %d of GPU %s", x.number, x.gpu)
		} else if w.xids[x] == 1 {
			w.log.Warn("the driver reports an error that is not the GPU's own; the counter tells of more", "xid", x.number, "gpu", x.gpu, "uuid", x.uuid)
		}
	}
	return failure
}
