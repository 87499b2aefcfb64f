package gpu

import (
	"time"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// counters is what is kept of a GPU from one look to the next. It outlives a
// reload of the driver.
type counters struct {
	meter     meter
	energy    energy
	at        time.Time // of the look before; zero when there was none
	last      reading
	ecc       float64 // uncorrected errors when this program began
	throttled uint64  // reasons that were warned of
}

// restart forgets the driver's clock and totals, which begin anew with it.
func (c *counters) restart() {
	c.meter.last, c.meter.covered, c.meter.begun = 0, 0, false
	c.energy.counted, c.energy.begun = false, false
	c.at, c.ecc = time.Time{}, unknown
}

// asker asks one GPU. After an answer that says that it is gone, or the driver,
// nothing more is asked.
type asker struct {
	l    *library
	gone error
}

// ask calls what the driver may lack. It is unknown when NVML has no answer.
func ask[T int32 | uint32 | uint64](a *asker, symbol string, call func() (T, nvml.Return)) float64 {
	if a.gone != nil || !a.l.has(symbol) {
		return unknown
	}
	v, ret := call()
	if !a.ok(symbol, ret) {
		return unknown
	}
	return float64(v)
}

func (a *asker) ok(call string, ret nvml.Return) bool {
	switch ret {
	case nvml.SUCCESS:
		return true
	case nvml.ERROR_GPU_IS_LOST, nvml.ERROR_RESET_REQUIRED, nvml.ERROR_UNINITIALIZED, nvml.ERROR_DRIVER_NOT_LOADED:
		a.gone = fault{call, ret, ret.Error()}
	}
	return false
}

// read looks at d. The values that are slow to change, or to read, are asked
// for only when thorough; in between they are those of the look before.
func (l *library) read(d device, c *counters, now time.Time, thorough bool) (reading, error) {
	a := &asker{l: l}
	r := blank(d.index, d.uuid, d.name)
	r.mig = d.parent >= 0
	r.memory = a.memory(d)
	if r.mig {
		return r, a.gone
	}
	var passed time.Duration
	if !c.at.IsZero() {
		passed = now.Sub(c.at)
	}
	samples, instant := a.utilization(d, c.meter.last)
	r.watts = ask(a, "nvmlDeviceGetPowerUsage", d.handle.GetPowerUsage) / 1e3
	total := ask(a, "nvmlDeviceGetTotalEnergyConsumption", d.handle.GetTotalEnergyConsumption) / 1e3
	if a.gone == nil {
		r.utilization = c.meter.add(samples, instant, passed)
		if c.meter.begun {
			r.busy = c.meter.seconds
		}
		r.joules = c.energy.add(total, r.watts, passed)
		c.at = now
	}
	if thorough {
		a.thorough(d, &r)
	} else {
		r.celsius, r.clocks, r.reasons, r.limits = c.last.celsius, c.last.clocks, c.last.reasons, c.last.limits
		r.corrected, r.uncorrected, r.recovery = c.last.corrected, c.last.uncorrected, c.last.recovery
	}
	if a.gone == nil {
		c.last = r
	}
	return r, a.gone
}

func (a *asker) memory(d device) memory {
	if a.l.has("nvmlDeviceGetMemoryInfo_v2") {
		if m, ret := d.handle.GetMemoryInfo_v2(); a.ok("nvmlDeviceGetMemoryInfo_v2", ret) {
			return memory{float64(m.Total), float64(m.Reserved), float64(m.Used), float64(m.Free), true}
		}
	}
	if a.gone == nil {
		if m, ret := d.handle.GetMemoryInfo(); a.ok("nvmlDeviceGetMemoryInfo", ret) {
			return memory{float64(m.Total), unknown, float64(m.Used), float64(m.Free), false}
		}
	}
	return memory{total: unknown, reserved: unknown, used: unknown, free: unknown}
}

// utilization returns the ring's new samples, or the instant value, from 0 to
// 1, when it has none: an idle GPU's ring runs dry, and a divided one has none.
func (a *asker) utilization(d device, last uint64) ([]sample, float64) {
	if a.gone == nil && a.l.has("nvmlDeviceGetSamples") {
		kind, ring, ret := d.handle.GetSamples(nvml.GPU_UTILIZATION_SAMPLES, last)
		// Whatever comes with NOT_FOUND is zeros: the return code decides.
		if a.ok("nvmlDeviceGetSamples", ret) && kind == nvml.VALUE_TYPE_UNSIGNED_INT {
			samples := make([]sample, 0, len(ring))
			for _, s := range ring {
				if s.TimeStamp != 0 {
					samples = append(samples, sample{s.TimeStamp, uint32Of(s.SampleValue)})
				}
			}
			if len(samples) > 0 {
				return samples, unknown
			}
		}
	}
	return nil, ask(a, "nvmlDeviceGetUtilizationRates", func() (uint32, nvml.Return) {
		u, ret := d.handle.GetUtilizationRates()
		return min(u.Gpu, 100), ret
	}) / 100
}

func (a *asker) thorough(d device, r *reading) {
	r.celsius = ask(a, "nvmlDeviceGetTemperatureV", func() (int32, nvml.Return) {
		t, ret := d.handle.GetTemperatureV().V1()
		return t.Temperature, ret
	})
	if !known(r.celsius) { // drivers before CUDA 13
		r.celsius = ask(a, "nvmlDeviceGetTemperature", func() (uint32, nvml.Return) { return d.handle.GetTemperature(nvml.TEMPERATURE_GPU) })
	}
	for _, c := range []struct {
		name string
		kind nvml.ClockType
	}{{"sm", nvml.CLOCK_SM}, {"memory", nvml.CLOCK_MEM}} {
		mhz := ask(a, "nvmlDeviceGetClockInfo", func() (uint32, nvml.Return) { return d.handle.GetClockInfo(c.kind) })
		if known(mhz) {
			r.clocks = append(r.clocks, clock{c.name, mhz * 1e6})
		}
	}
	reasons := ask(a, "nvmlDeviceGetCurrentClocksEventReasons", d.handle.GetCurrentClocksEventReasons)
	if r.limits = known(reasons); r.limits {
		r.reasons = uint64(reasons)
	}
	ecc := func(kind nvml.MemoryErrorType) float64 {
		return ask(a, "nvmlDeviceGetTotalEccErrors", func() (uint64, nvml.Return) { return d.handle.GetTotalEccErrors(kind, nvml.VOLATILE_ECC) })
	}
	r.corrected, r.uncorrected = ecc(nvml.MEMORY_ERROR_TYPE_CORRECTED), ecc(nvml.MEMORY_ERROR_TYPE_UNCORRECTED)
	r.recovery = ask(a, "nvmlDeviceGetFieldValues", func() (uint32, nvml.Return) {
		values := []nvml.FieldValue{{FieldId: nvml.FI_DEV_GET_GPU_RECOVERY_ACTION}}
		ret := d.handle.GetFieldValues(values)
		if ret == nvml.SUCCESS { // each field has a code of its own
			ret = nvml.Return(values[0].NvmlReturn)
		}
		return uint32Of(values[0].Value), ret
	})
}
