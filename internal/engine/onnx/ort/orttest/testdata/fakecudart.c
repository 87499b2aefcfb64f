// A CUDA runtime without a GPU, for tests. It keeps "device" memory on the
// host, counts what is copied off the device, and starts no kernel: every
// result is what the memory held before. With it the real CUDA provider
// registers its kernels, takes nodes and moves tensors; what it computes is
// meaningless. FAKE_CUDA_COUNT is the number of devices, FAKE_CUDA_ERROR the
// cudaError_t of asking for it. FAKE_CUDA_COUNTERS is a file of three 64-bit
// numbers that is kept up to date: bytes copied to the host, bytes copied to the
// device, bytes allocated on it. Layouts are those of driver_types.h of CUDA 13.
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HOST_TO_DEVICE 1
#define DEVICE_TO_HOST 2
#define DEFAULT_KIND 4

static uint64_t unwatched[3];
static uint64_t *counters = unwatched; // to the host, to the device, allocated
static char handle[64];                                         // what any handle points to

static int number(const char *name, int otherwise) {
  const char *v = getenv(name);
  return v != NULL ? atoi(v) : otherwise;
}

int cudaGetDeviceCount(int *n) {
  *n = number("FAKE_CUDA_COUNT", 1);
  int err = number("FAKE_CUDA_ERROR", 0);
  return err != 0 ? err : *n > 0 ? 0 : 100;
}
const char *cudaGetErrorString(int err) {
  return err == 100 ? "no CUDA-capable device is detected" : err == 35 ? "CUDA driver version is insufficient for CUDA runtime version" : "error";
}
const char *cudaGetErrorName(int err) { return err == 100 ? "cudaErrorNoDevice" : "cudaError"; }
int cudaRuntimeGetVersion(int *v) { return *v = 13000, 0; }
int cudaDriverGetVersion(int *v) { return *v = 13000, 0; }

// The first fields of cudaDeviceProp.
struct prop {
  char name[256], uuid[16], luid[8];
  unsigned luid_mask;
  size_t total_memory, shared_per_block;
  int regs, warp;
  size_t pitch;
  int max_threads, max_dim[3], max_grid[3];
  size_t const_memory;
  int major, minor;
  size_t alignment, pitch_alignment;
  int multiprocessors;
};

int cudaGetDeviceProperties(void *out, int device) {
  struct prop p = {.name = "fake", .total_memory = 8ull << 30, .shared_per_block = 48 << 10, .regs = 65536, .warp = 32,
                   .max_threads = 1024, .max_dim = {1024, 1024, 64}, .max_grid = {1 << 30, 65535, 65535},
                   .const_memory = 65536, .major = 8, .minor = 0, .multiprocessors = 8};
  (void)device;
  memcpy(out, &p, sizeof p); // the rest of the caller's struct stays as it was
  return 0;
}
int cudaDeviceGetAttribute(int *v, int attribute, int device) {
  (void)device;
  *v = attribute == 75 ? 8 : attribute == 76 ? 0 : attribute == 10 ? 32 : 1024; // compute capability, warp size
  return 0;
}
int cudaGetDevice(int *d) { return *d = 0, 0; }
int cudaMemGetInfo(size_t *free_bytes, size_t *total) { return *free_bytes = *total = 8ull << 30, 0; }

static int allocate(void **p, size_t n) {
  *p = calloc(1, n + 4096);
  return *p == NULL ? 2 : 0;
}
int cudaMalloc(void **p, size_t n) { return counters[2] += n, allocate(p, n); }
int cudaMallocHost(void **p, size_t n) { return allocate(p, n); }
int cudaHostAlloc(void **p, size_t n, unsigned flags) { return (void)flags, allocate(p, n); }
int cudaFree(void *p) { return free(p), 0; }
int cudaFreeHost(void *p) { return free(p), 0; }

static int copy(void *to, const void *from, size_t n, int kind) {
  counters[0] += kind == DEVICE_TO_HOST || kind == DEFAULT_KIND ? n : 0;
  counters[1] += kind == HOST_TO_DEVICE || kind == DEFAULT_KIND ? n : 0;
  memmove(to, from, n);
  return 0;
}
int cudaMemcpy(void *to, const void *from, size_t n, int kind) { return copy(to, from, n, kind); }
int cudaMemcpyAsync(void *to, const void *from, size_t n, int kind, void *s) { return (void)s, copy(to, from, n, kind); }
int cudaMemset(void *p, int v, size_t n) { return memset(p, v, n), 0; }
int cudaMemsetAsync(void *p, int v, size_t n, void *s) { return (void)s, memset(p, v, n), 0; }

struct attributes {
  int type, device;
  void *on_device, *on_host;
};
int cudaPointerGetAttributes(struct attributes *a, void *p) { return *a = (struct attributes){2, 0, p, p}, 0; }

static int make(void **h) { return *h = handle, 0; }
int cudaStreamCreate(void **s) { return make(s); }
int cudaStreamCreateWithFlags(void **s, unsigned f) { return (void)f, make(s); }
int cudaEventCreate(void **e) { return make(e); }
int cudaEventCreateWithFlags(void **e, unsigned f) { return (void)f, make(e); }
int cudaStreamIsCapturing(void *s, int *status) { return (void)s, *status = 0, 0; }
int cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *n, const void *f, int t, size_t s, unsigned flags) {
  (void)f, (void)t, (void)s, (void)flags;
  return *n = 1, 0;
}
void **__cudaRegisterFatBinary(void *b) { return (void)b, (void **)handle; }

__attribute__((constructor)) static void watch(void) {
  const char *path = getenv("FAKE_CUDA_COUNTERS");
  int f = path != NULL ? open(path, O_RDWR | O_CREAT, 0600) : -1;
  if (f < 0 || ftruncate(f, sizeof unwatched) != 0) return;
  void *m = mmap(NULL, sizeof unwatched, PROT_READ | PROT_WRITE, MAP_SHARED, f, 0);
  close(f);
  if (m != MAP_FAILED) counters = m;
}
