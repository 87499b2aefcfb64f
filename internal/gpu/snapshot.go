package gpu

import (
	"math"
	"time"
)

// unknown is a value that NVML does not tell. It has no series, because a 0
// would be believed.
var unknown = math.NaN()

func known(v float64) bool { return !math.IsNaN(v) }

// snapshot is what the last look at the GPUs found. It is never changed after
// publication.
type snapshot struct {
	at       time.Time // when the look ended; zero before the first
	answered time.Time // when a GPU last answered; zero when none ever did
	reason   string    // why there is nothing to tell; empty when there is
	driver   string
	cuda     string
	devices  []reading
	xids     map[xid]float64
}

// xid names a counter of XID errors.
type xid struct {
	gpu, uuid string
	number    uint64
}

// reading is one GPU, or one MIG instance of it, at the time of a look.
type reading struct {
	index string // 0; the second instance of GPU 0 is 0:1
	uuid  string
	name  string
	mig   bool // an instance, which has memory and little else
	lost  bool // it does not answer: only what was counted is left

	utilization float64 // mean since the look before, 0 to 1
	busy        float64 // seconds, since the program began
	joules      float64 // since the program began
	watts       float64
	celsius     float64

	memory  memory
	clocks  []clock
	reasons uint64 // why the clocks are where they are, as bits
	limits  bool   // reasons is known

	corrected, uncorrected float64 // ECC errors since the driver was loaded
	recovery               float64 // NVML's advice; 0 is none
}

// memory is that of a GPU in bytes.
type memory struct {
	total, reserved, used, free float64
	exact                       bool // used is without what the driver reserves
}

type clock struct {
	name  string
	hertz float64
}

func blank(index, uuid, name string) reading {
	return reading{index: index, uuid: uuid, name: name, utilization: unknown, busy: unknown, joules: unknown,
		watts: unknown, celsius: unknown, corrected: unknown, uncorrected: unknown, recovery: unknown,
		memory: memory{total: unknown, reserved: unknown, used: unknown, free: unknown}}
}
