package gpu

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"

	"github.com/NVIDIA/go-nvml/pkg/dl"
	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// defaultLibrary is NVML where the container runtime puts it.
const defaultLibrary = "libnvidia-ml.so.1"

// errNoLibrary: NVML cannot be loaded, which is no fault where there is no GPU.
var errNoLibrary = errors.New("the NVIDIA driver's library cannot be loaded")

// required are the functions that every driver has. Without one of them the
// library is not NVML.
var required = []string{"nvmlInit_v2", "nvmlShutdown", "nvmlErrorString", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2",
	"nvmlDeviceGetUUID", "nvmlDeviceGetName", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetUtilizationRates"}

// library is a loaded NVML and its handles. Only the worker uses it: one
// goroutine makes every call.
type library struct {
	path    string
	pin     *dl.DynamicLibrary
	nvml    nvml.Interface
	symbols map[string]bool
	events  nvml.EventSet // nil when there are none
	devices []device
}

// device is a GPU or a MIG instance.
type device struct {
	handle nvml.Device
	index  string
	uuid   string
	name   string
	parent int // position of the GPU of a MIG instance; -1 for a GPU
}

// open loads the library once and for all. A call to a symbol that a library
// lacks ends the process, and so would one to a library that was unloaded:
// Shutdown does that, but for this pin.
func (l *library) open() error {
	if l.pin != nil {
		return nil
	}
	pin := dl.New(l.path, dl.RTLD_LAZY|dl.RTLD_GLOBAL)
	if err := pin.Open(); err != nil {
		return fmt.Errorf("%w: %v", errNoLibrary, err)
	}
	for _, name := range required {
		if pin.Lookup(name) != nil {
			return fmt.Errorf("%w: %s has no %s", errNoLibrary, l.path, name)
		}
	}
	l.pin, l.nvml, l.symbols = pin, nvml.New(nvml.WithLibraryPath(l.path)), map[string]bool{}
	return nil
}

// has says whether the driver has a function. It is asked before every call of
// one that is not required.
func (l *library) has(symbol string) bool {
	found, ok := l.symbols[symbol]
	if !ok {
		found = l.nvml.Extensions().LookupSymbol(symbol) == nil
		l.symbols[symbol] = found
	}
	return found
}

// start initialises NVML and takes new handles.
func (l *library) start() error {
	if err := l.open(); err != nil {
		return err
	}
	if ret := l.nvml.Init(); ret != nvml.SUCCESS {
		return fault{"nvmlInit", ret, ret.Error()}
	}
	l.devices, l.events = nil, nil
	err := l.take()
	if err != nil {
		l.stop()
	}
	return err
}

func (l *library) take() error {
	n, ret := l.nvml.DeviceGetCount()
	if ret != nvml.SUCCESS {
		return fault{"nvmlDeviceGetCount", ret, ret.Error()}
	}
	for i := range n {
		handle, ret := l.nvml.DeviceGetHandleByIndex(i)
		if ret != nvml.SUCCESS {
			return fault{"nvmlDeviceGetHandleByIndex", ret, ret.Error()}
		}
		d := device{handle: handle, index: strconv.Itoa(i), parent: -1}
		if d.uuid, ret = handle.GetUUID(); ret != nvml.SUCCESS {
			return fault{"nvmlDeviceGetUUID", ret, ret.Error()}
		}
		d.name, _ = handle.GetName() // it is only for people
		at := len(l.devices)
		l.devices = append(append(l.devices, d), l.instances(d, at)...)
	}
	l.listen()
	return nil
}

// instances are the MIG instances of d.
func (l *library) instances(d device, at int) []device {
	if !l.has("nvmlDeviceGetMigMode") || !l.has("nvmlDeviceGetMaxMigDeviceCount") || !l.has("nvmlDeviceGetMigDeviceHandleByIndex") {
		return nil
	}
	if mode, _, ret := d.handle.GetMigMode(); ret != nvml.SUCCESS || mode != nvml.DEVICE_MIG_ENABLE {
		return nil
	}
	most, ret := d.handle.GetMaxMigDeviceCount()
	if ret != nvml.SUCCESS {
		return nil
	}
	var found []device
	for i := range most {
		handle, ret := d.handle.GetMigDeviceHandleByIndex(i)
		if ret != nvml.SUCCESS { // there may be fewer than the most
			continue
		}
		m := device{handle: handle, index: fmt.Sprintf("%s:%d", d.index, i), name: d.name, parent: at}
		if m.uuid, ret = handle.GetUUID(); ret == nvml.SUCCESS {
			found = append(found, m)
		}
	}
	return found
}

// listen registers for XID errors, where there are any to be had.
func (l *library) listen() {
	for _, symbol := range []string{"nvmlEventSetCreate", "nvmlDeviceRegisterEvents", "nvmlEventSetWait_v2", "nvmlEventSetFree"} {
		if !l.has(symbol) {
			return
		}
	}
	set, ret := l.nvml.EventSetCreate()
	if ret != nvml.SUCCESS {
		return
	}
	heard := false
	for _, d := range l.devices {
		if d.parent < 0 && d.handle.RegisterEvents(nvml.EventTypeXidCriticalError, set) == nvml.SUCCESS {
			heard = true
		}
	}
	if !heard {
		_ = set.Free() // nothing is to be heard from it
		return
	}
	l.events = set
}

// heard returns the XID errors since the last call, at most 64 of a storm.
func (l *library) heard() []xid {
	var all []xid
	for l.events != nil && len(all) < 64 {
		e, ret := l.events.Wait(0)
		if ret != nvml.SUCCESS { // a timeout when there are none
			break
		}
		if e.EventType != nvml.EventTypeXidCriticalError {
			continue
		}
		x := xid{number: e.EventData}
		for _, d := range l.devices {
			if d.handle == e.Device {
				x.gpu, x.uuid = d.index, d.uuid
			}
		}
		all = append(all, x)
	}
	return all
}

// stop ends NVML; the handles are void.
func (l *library) stop() {
	if l.events != nil {
		_ = l.events.Free() // the driver frees it, too
	}
	l.events, l.devices = nil, nil
	_ = l.nvml.Shutdown() // there is nobody left to tell
}

// fault is an answer of NVML that is not success. Its words were asked for by
// the worker, because asking is a call, too.
type fault struct {
	call  string
	ret   nvml.Return
	words string
}

// Error names the call.
func (f fault) Error() string { return f.call + ": " + f.words }

// Numbers of the GPU's own are in the byte order of the machine.
func uint32Of(b [8]byte) uint32 { return binary.NativeEndian.Uint32(b[:4]) }
