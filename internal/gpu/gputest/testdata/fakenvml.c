// A libnvidia-ml.so.1 for tests. Every call reads the file beside the library,
// its name with .txt behind it, so that a test can change a GPU while it is
// watched. A line is a key and its values:
//
//   devices 2                 how many GPUs; without it 1
//   gpu0.util 97              a value of GPU 0: without its line NOT_SUPPORTED
//   gpu0.sample TIME VALUE    one of the ring, µs; any number of lines
//   gpu0.tail 9               entries of the ring that nobody has filled
//   gpu0.live 60              a ring that fills itself, six a second, with this
//   gpu0.watts 300            energy that grows by itself
//   gpu0.mig 2                instances; gpu0.mig1.used and so on are theirs
//   gpu0.lost 1               every call for it answers GPU_IS_LOST
//   lost_after 40             the same for all, so many calls after a change
//   event 0 79                an XID of GPU 0, told once
//   fail.FUNCTION 9           what it returns
//   delay.FUNCTION 10000      for how many ms it blocks
//
// Each function can be left out of the build by -DNO_ and its name. NVML is
// called by one goroutine only: two calls at once end the process.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

typedef int ret;
typedef unsigned long long u64;
enum { OK = 0, UNINITIALIZED = 1, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT = 7, TIMEOUT = 10, LOST = 15 };

struct dev { int gpu, mig; }; // mig is -1 for the whole GPU
static struct dev devices[8], instances[8][8];
static char *text;
static struct stat seen;
static int inited, calls, told;
static u64 registered;
static volatile int inside;

static u64 micros(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (u64)t.tv_sec * 1000000 + (u64)t.tv_nsec / 1000;
}

// refresh reads the file again when it was replaced.
static void refresh(void) {
	Dl_info self;
	char name[4096];
	struct stat now;
	if (!dladdr((void *)refresh, &self)) return;
	snprintf(name, sizeof name, "%s.txt", self.dli_fname);
	if (stat(name, &now) != 0) { free(text); text = NULL; return; }
	if (text && now.st_ino == seen.st_ino && now.st_mtim.tv_nsec == seen.st_mtim.tv_nsec &&
	    now.st_mtim.tv_sec == seen.st_mtim.tv_sec && now.st_size == seen.st_size) return;
	FILE *f = fopen(name, "r");
	if (!f) return;
	free(text);
	text = calloc(1, (size_t)now.st_size + 1);
	if (fread(text, 1, (size_t)now.st_size, f) != (size_t)now.st_size) abort();
	fclose(f);
	seen = now;
	calls = 0;
}

// line returns what follows the nth line with this key, or NULL.
static const char *line(const char *key, int nth) {
	size_t n = strlen(key);
	for (const char *p = text; p && *p; p = strchr(p, '\n'), p = p ? p + 1 : p)
		if (!strncmp(p, key, n) && p[n] == ' ' && nth-- == 0) return p + n + 1;
	return NULL;
}

static const char *of(const struct dev *d, const char *what, int nth) {
	char key[128];
	if (d->mig < 0) snprintf(key, sizeof key, "gpu%d.%s", d->gpu, what);
	else snprintf(key, sizeof key, "gpu%d.mig%d.%s", d->gpu, d->mig, what);
	return line(key, nth);
}

static int enter(const char *function) {
	char key[128];
	if (__sync_add_and_fetch(&inside, 1) != 1) {
		fprintf(stderr, "fakenvml: %s is called while another call runs\n", function);
		abort();
	}
	refresh();
	calls++;
	snprintf(key, sizeof key, "delay.%s", function);
	const char *v = line(key, 0);
	if (v) {
		struct timespec t = {atol(v) / 1000, atol(v) % 1000 * 1000000};
		nanosleep(&t, NULL);
	}
	snprintf(key, sizeof key, "fail.%s", function);
	v = line(key, 0);
	return v ? atoi(v) : OK;
}

static ret leave(ret r) {
	__sync_sub_and_fetch(&inside, 1);
	return r;
}

// enter_device is enter for a call about d.
static ret enter_device(const char *function, const struct dev *d) {
	ret r = enter(function);
	const char *after = line("lost_after", 0);
	if (r) return r;
	if (!inited) return UNINITIALIZED;
	struct dev whole = {d->gpu, -1};
	if (of(&whole, "lost", 0) || (after && calls > atoi(after))) return LOST;
	return OK;
}

static ret number(const struct dev *d, const char *what, u64 *out) {
	const char *v = of(d, what, 0);
	if (!v) return NOT_SUPPORTED;
	*out = strtoull(v, NULL, 10);
	return OK;
}

// whole is number for what a MIG instance and a divided GPU do not have.
static ret whole(const struct dev *d, const char *what, u64 *out) {
	if (d->mig >= 0 || of(d, "mig", 0)) return NOT_SUPPORTED;
	return number(d, what, out);
}

static ret word(const char *v, char *out, unsigned length) {
	if (!v) return NOT_SUPPORTED;
	size_t n = strcspn(v, "\n");
	if (n + 1 > length) return INSUFFICIENT;
	memcpy(out, v, n);
	out[n] = 0;
	return OK;
}

#define ASK(function, d) ret r = enter_device(function, d); if (r) return leave(r)
#define GET(function, d, what, type, out) \
	{ ASK(function, d); u64 v = 0; r = number(d, what, &v); if (!r) *(out) = (type)v; return leave(r); }

ret nvmlInit_v2(void) {
	ret r = enter("nvmlInit_v2");
	if (!r) inited = 1;
	return leave(r);
}
ret nvmlInit(void) { return nvmlInit_v2(); }
ret nvmlShutdown(void) {
	ret r = enter("nvmlShutdown");
	inited = 0;
	registered = 0;
	return leave(r);
}
const char *nvmlErrorString(ret r) {
	switch (r) {
	case LOST: return "GPU is lost";
	case NOT_SUPPORTED: return "Not Supported";
	case 9: return "Driver Not Loaded";
	}
	return "an error of the fake";
}
ret nvmlSystemGetDriverVersion(char *out, unsigned n) {
	ret r = enter("nvmlSystemGetDriverVersion");
	return leave(r ? r : word(line("driver", 0), out, n));
}
#ifndef NO_nvmlSystemGetCudaDriverVersion_v2
ret nvmlSystemGetCudaDriverVersion_v2(int *out) {
	ret r = enter("nvmlSystemGetCudaDriverVersion_v2");
	const char *v = line("cuda", 0);
	if (!r && !v) r = NOT_SUPPORTED;
	if (!r) *out = atoi(v);
	return leave(r);
}
#endif
ret nvmlDeviceGetCount_v2(unsigned *out) {
	ret r = enter("nvmlDeviceGetCount_v2");
	const char *v = line("devices", 0);
	*out = v ? (unsigned)atoi(v) : 1;
	return leave(r ? r : inited ? OK : UNINITIALIZED);
}
ret nvmlDeviceGetCount(unsigned *out) { return nvmlDeviceGetCount_v2(out); }
ret nvmlDeviceGetHandleByIndex_v2(unsigned i, struct dev **out) {
	ret r = enter("nvmlDeviceGetHandleByIndex_v2");
	devices[i] = (struct dev){(int)i, -1};
	*out = &devices[i];
	return leave(r);
}
ret nvmlDeviceGetHandleByIndex(unsigned i, struct dev **out) { return nvmlDeviceGetHandleByIndex_v2(i, out); }
ret nvmlDeviceGetUUID(struct dev *d, char *out, unsigned n) {
	ASK("nvmlDeviceGetUUID", d);
	return leave(word(of(d, "uuid", 0), out, n));
}
ret nvmlDeviceGetName(struct dev *d, char *out, unsigned n) {
	ASK("nvmlDeviceGetName", d);
	return leave(word(of(d, "name", 0), out, n));
}
ret nvmlDeviceGetUtilizationRates(struct dev *d, unsigned *out) {
	ASK("nvmlDeviceGetUtilizationRates", d);
	u64 v = 0;
	r = whole(d, "util", &v);
	out[0] = (unsigned)v;
	out[1] = 0;
	return leave(r);
}

#ifndef NO_nvmlDeviceGetSamples
struct sample { u64 time; union { double d; unsigned u; u64 all; } value; };

static unsigned live(const struct dev *d, u64 last, struct sample *out) {
	const u64 step = 1000000 / 6, now = micros() / step * step, value = strtoull(of(d, "live", 0), NULL, 10);
	u64 from = now - 100 * step;
	unsigned n = 0;
	for (u64 t = (last > from ? last / step * step : from) + step; t <= now; t += step, n++)
		if (out) { out[n].time = t; out[n].value.all = 0; out[n].value.u = (unsigned)value; }
	return n;
}

ret nvmlDeviceGetSamples(struct dev *d, int type, u64 last, unsigned *kind, unsigned *count, struct sample *out) {
	ASK("nvmlDeviceGetSamples", d);
	if (type != 1 || of(d, "mig", 0) || !(of(d, "sample", 0) || of(d, "tail", 0) || of(d, "live", 0))) return leave(NOT_SUPPORTED);
	*kind = 1;
	unsigned n = 0;
	if (of(d, "live", 0)) {
		n = live(d, last, out);
	} else {
		const char *v;
		for (int i = 0; (v = of(d, "sample", i)); i++) {
			char *end;
			u64 time = strtoull(v, &end, 10);
			if (time <= last) continue;
			if (out && n < *count) { out[n].time = time; out[n].value.all = 0; out[n].value.u = (unsigned)strtoul(end, NULL, 10); }
			n++;
		}
	}
	if (!n) { // the real one gives the size of the ring first, and finds nothing then
		*count = 120;
		return leave(out ? NOT_FOUND : OK);
	}
	const char *tail = of(d, "tail", 0);
	for (int i = tail ? atoi(tail) : 0; i > 0; i--, n++)
		if (out && n < *count) memset(&out[n], 0, sizeof *out);
	*count = n;
	return leave(OK);
}
#endif

static ret memory(const struct dev *d, u64 *total, u64 *reserved, u64 *used) {
	ret r = number(d, "total", total);
	if (!r) r = number(d, "used", used);
	if (number(d, "reserved", reserved)) *reserved = 0;
	return r;
}
ret nvmlDeviceGetMemoryInfo(struct dev *d, u64 *out) {
	ASK("nvmlDeviceGetMemoryInfo", d);
	u64 reserved = 0;
	r = memory(d, &out[0], &reserved, &out[2]);
	out[2] += reserved;
	out[1] = out[0] - out[2];
	return leave(r);
}
#ifndef NO_nvmlDeviceGetMemoryInfo_v2
struct memory { unsigned version; u64 total, reserved, free, used; };
ret nvmlDeviceGetMemoryInfo_v2(struct dev *d, struct memory *out) {
	ASK("nvmlDeviceGetMemoryInfo_v2", d);
	r = memory(d, &out->total, &out->reserved, &out->used);
	out->free = out->total - out->used - out->reserved;
	return leave(r);
}
#endif
#ifndef NO_nvmlDeviceGetPowerUsage
ret nvmlDeviceGetPowerUsage(struct dev *d, unsigned *out) GET("nvmlDeviceGetPowerUsage", d, "power", unsigned, out)
#endif
#ifndef NO_nvmlDeviceGetTotalEnergyConsumption
ret nvmlDeviceGetTotalEnergyConsumption(struct dev *d, u64 *out) {
	ASK("nvmlDeviceGetTotalEnergyConsumption", d);
	const char *watts = of(d, "watts", 0);
	if (!watts) return leave(number(d, "energy", out));
	*out = micros() * strtoull(watts, NULL, 10) / 1000;
	return leave(OK);
}
#endif
ret nvmlDeviceGetTemperature(struct dev *d, int sensor, unsigned *out) {
	(void)sensor;
	GET("nvmlDeviceGetTemperature", d, "temperature", unsigned, out)
}
#ifndef NO_nvmlDeviceGetTemperatureV
struct temperature { unsigned version, sensor; int value; };
ret nvmlDeviceGetTemperatureV(struct dev *d, struct temperature *out) GET("nvmlDeviceGetTemperatureV", d, "temperature", int, &out->value)
#endif
ret nvmlDeviceGetClockInfo(struct dev *d, int type, unsigned *out) {
	static const char *const names[] = {"graphics_mhz", "sm_mhz", "memory_mhz", "video_mhz"};
	GET("nvmlDeviceGetClockInfo", d, names[type & 3], unsigned, out)
}
#ifndef NO_nvmlDeviceGetCurrentClocksEventReasons
ret nvmlDeviceGetCurrentClocksEventReasons(struct dev *d, u64 *out) GET("nvmlDeviceGetCurrentClocksEventReasons", d, "reasons", u64, out)
#endif
#ifndef NO_nvmlDeviceGetTotalEccErrors
ret nvmlDeviceGetTotalEccErrors(struct dev *d, int type, int counter, u64 *out) {
	(void)counter;
	GET("nvmlDeviceGetTotalEccErrors", d, type ? "ecc_uncorrected" : "ecc_corrected", u64, out)
}
#endif
#ifndef NO_nvmlDeviceGetFieldValues
struct field { unsigned id, scope; long long time, latency; unsigned type, result; union { unsigned u; u64 all; } value; };
ret nvmlDeviceGetFieldValues(struct dev *d, int n, struct field *out) {
	ASK("nvmlDeviceGetFieldValues", d);
	for (int i = 0; i < n; i++) {
		char what[32];
		u64 v = 0;
		snprintf(what, sizeof what, "field%u", out[i].id);
		out[i].result = (unsigned)number(d, what, &v);
		out[i].type = 1;
		out[i].value.all = 0;
		out[i].value.u = (unsigned)v;
	}
	return leave(OK);
}
#endif
#ifndef NO_nvmlDeviceGetMigMode
ret nvmlDeviceGetMigMode(struct dev *d, unsigned *now, unsigned *next) {
	ASK("nvmlDeviceGetMigMode", d);
	*now = *next = of(d, "mig", 0) != NULL;
	return leave(OK);
}
#endif
ret nvmlDeviceGetMaxMigDeviceCount(struct dev *d, unsigned *out) {
	ASK("nvmlDeviceGetMaxMigDeviceCount", d);
	*out = of(d, "mig", 0) ? 7 : 0;
	return leave(OK);
}
ret nvmlDeviceGetMigDeviceHandleByIndex(struct dev *d, unsigned i, struct dev **out) {
	ASK("nvmlDeviceGetMigDeviceHandleByIndex", d);
	const char *n = of(d, "mig", 0);
	if (!n || (int)i >= atoi(n)) return leave(NOT_FOUND);
	instances[d->gpu][i] = (struct dev){d->gpu, (int)i};
	*out = &instances[d->gpu][i];
	return leave(OK);
}
#ifndef NO_nvmlEventSetCreate
ret nvmlEventSetCreate(int **set) {
	static int only;
	*set = &only;
	return leave(enter("nvmlEventSetCreate"));
}
ret nvmlEventSetFree(int *set) {
	(void)set;
	return leave(enter("nvmlEventSetFree"));
}
ret nvmlDeviceRegisterEvents(struct dev *d, u64 types, int *set) {
	(void)set;
	ASK("nvmlDeviceRegisterEvents", d);
	registered |= types;
	return leave(OK);
}
struct event { struct dev *device; u64 type, data; unsigned gpu, compute; };
ret nvmlEventSetWait_v2(int *set, struct event *out, unsigned ms) {
	(void)set, (void)ms;
	ret r = enter("nvmlEventSetWait_v2");
	if (r) return leave(r);
	int all = 0, gpu;
	while (line("event", all)) all++;
	if (told > all) told = all;
	if (told == all || !(registered & 8)) return leave(TIMEOUT);
	sscanf(line("event", told++), "%d %llu", &gpu, &out->data);
	out->device = &devices[gpu];
	out->type = 8;
	return leave(OK);
}
#endif
