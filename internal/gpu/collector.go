package gpu

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, append([]string{"gpu", "uuid"}, labels...), nil)
}

var (
	descUp     = prometheus.NewDesc("infer_gpu_up", "1 while the driver answers for every GPU; 0 without a driver, without a GPU, and when a call hangs.", nil, nil)
	descLooked = prometheus.NewDesc("infer_gpu_last_sample_timestamp_seconds", "When the driver last answered.", nil, nil)

	descInfo        = desc("infer_gpu_info", "Facts of a GPU.", "name", "driver_version", "cuda_version")
	descGPUUp       = desc("infer_gpu_device_up", "1 while this GPU answers.")
	descPercent     = desc("gpu_utilization", "Percent, 0 to 100, of the time in which at least one kernel ran; one request makes it 100.")
	descPercentApp  = desc("nvidia_gpu_utilization", "Percent, 0 to 100, as gpu_utilization.", "app")
	descRatio       = desc("infer_gpu_utilization_ratio", "Share of the time in which at least one kernel ran, since the sample before.")
	descBusy        = desc("infer_gpu_busy_seconds_total", "Time in which at least one kernel ran.")
	descUsed        = desc("infer_gpu_memory_used_bytes", "Memory in use by anybody; with the driver's own where the driver does not tell it apart.")
	descTotal       = desc("infer_gpu_memory_total_bytes", "Memory of the GPU.")
	descReserved    = desc("infer_gpu_memory_reserved_bytes", "Memory that the driver keeps to itself.")
	descWatts       = desc("infer_gpu_power_watts", "Power.")
	descJoules      = desc("infer_gpu_energy_joules_total", "Energy since this program began.")
	descCelsius     = desc("infer_gpu_temperature_celsius", "Temperature of the GPU.")
	descClock       = desc("infer_gpu_clock_hertz", "Clock.", "clock")
	descReason      = desc("infer_gpu_clocks_event_active", "1 for what now keeps the clocks where they are.", "reason")
	descECC         = desc("infer_gpu_ecc_errors", "Memory errors since the driver was loaded.", "kind")
	descXID         = desc("infer_gpu_xid_errors_total", "XID errors that the driver reported.", "xid")
	descRecovery    = desc("infer_gpu_recovery_action", "What the driver advises: 0 nothing, 1 reset, 2 reboot, 3 drain, 4 drain and reset.")
	everyDescriptor = []*prometheus.Desc{descUp, descLooked, descInfo, descGPUUp, descPercent, descPercentApp, descRatio, descBusy, descUsed,
		descTotal, descReserved, descWatts, descJoules, descCelsius, descClock, descReason, descECC, descXID, descRecovery, descSeconds, descEnergy}
)

// Describe implements prometheus.Collector.
func (m *Monitor) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range everyDescriptor {
		ch <- d
	}
}

// Collect implements prometheus.Collector. It reads the last snapshot, and
// leaves out of it all but the counters when that is stale.
func (m *Monitor) Collect(ch chan<- prometheus.Metric) {
	s, fresh := m.fresh()
	ch <- prometheus.MustNewConstMetric(descUp, prometheus.GaugeValue, number(fresh && s.reason == ""))
	if !s.answered.IsZero() {
		ch <- prometheus.MustNewConstMetric(descLooked, prometheus.GaugeValue, float64(s.answered.UnixMilli())/1e3)
	}
	m.ledger.collect(ch)
	for _, r := range s.devices {
		p := printer{ch, r}
		p.counter(descBusy, r.busy)
		p.counter(descJoules, r.joules)
		answers := !r.lost && fresh
		p.gauge(descGPUUp, number(answers))
		if answers {
			p.gauge(descInfo, 1, r.name, s.driver, s.cuda)
			p.all(m.cfg.App)
		}
	}
	for _, x := range sortXIDs(s.xids) {
		ch <- prometheus.MustNewConstMetric(descXID, prometheus.CounterValue, s.xids[x], x.gpu, x.uuid, strconv.FormatUint(x.number, 10))
	}
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// printer writes the series of one GPU; what is unknown has none.
type printer struct {
	ch chan<- prometheus.Metric
	r  reading
}

func (p printer) metric(d *prometheus.Desc, kind prometheus.ValueType, v float64, labels ...string) {
	if known(v) {
		p.ch <- prometheus.MustNewConstMetric(d, kind, v, append([]string{p.r.index, p.r.uuid}, labels...)...)
	}
}

func (p printer) gauge(d *prometheus.Desc, v float64, labels ...string) {
	p.metric(d, prometheus.GaugeValue, v, labels...)
}

func (p printer) counter(d *prometheus.Desc, v float64) {
	p.metric(d, prometheus.CounterValue, v)
}

func (p printer) all(app string) {
	r := p.r
	p.gauge(descPercent, 100*r.utilization)
	p.gauge(descPercentApp, 100*r.utilization, app)
	p.gauge(descRatio, r.utilization)
	p.gauge(descUsed, r.memory.used)
	p.gauge(descTotal, r.memory.total)
	p.gauge(descReserved, r.memory.reserved)
	p.gauge(descWatts, r.watts)
	p.gauge(descCelsius, r.celsius)
	for _, c := range r.clocks {
		p.gauge(descClock, c.hertz, c.name)
	}
	for _, reason := range reasonNames {
		if r.limits {
			p.gauge(descReason, number(r.reasons&reason.bit != 0), reason.name)
		}
	}
	p.gauge(descECC, r.corrected, "corrected")
	p.gauge(descECC, r.uncorrected, "uncorrected")
	p.gauge(descRecovery, r.recovery)
}
