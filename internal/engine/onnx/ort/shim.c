#include "shim.h"

#include <dlfcn.h>
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "_cgo_export.h"

// TRY returns the status of a call that did not succeed.
#define TRY(call)                \
  do {                           \
    OrtStatus *s_ = (call);      \
    if (s_ != NULL) return s_;   \
  } while (0)

ort_lib ort_open(const char *path) {
  ort_lib l = {0};
  l.handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (l.handle == NULL) {
    const char *e = dlerror();
    l.error = strdup(e != NULL ? e : "dlopen gave no reason");
    return l;
  }
  const OrtApiBase *(*base)(void) = (const OrtApiBase *(*)(void))dlsym(l.handle, "OrtGetApiBase");
  if (base == NULL) {
    l.error = strdup("symbol OrtGetApiBase not found");
    dlclose(l.handle);
    l.handle = NULL;
    return l;
  }
  l.version = base()->GetVersionString();
  l.api = base()->GetApi(ORT_API_VERSION);
  return l;
}

const char *ort_status_message(const OrtApi *a, OrtStatus *s) { return a->GetErrorMessage(s); }
int ort_status_code(const OrtApi *a, OrtStatus *s) { return (int)a->GetErrorCode(s); }
void ort_status_free(const OrtApi *a, OrtStatus *s) { a->ReleaseStatus(s); }

static void ort_log(void *param, OrtLoggingLevel level, const char *category, const char *logid, const char *where,
                    const char *message) {
  (void)logid;
  (void)category;
  goOrtLog((uintptr_t)param, (int)level, (char *)where, (char *)message);
}

OrtStatus *ort_env(const OrtApi *a, uintptr_t log_handle, int level, OrtEnv **out) {
  TRY(a->CreateEnvWithCustomLogger(ort_log, (void *)log_handle, (OrtLoggingLevel)level, "infer", out));
  return a->DisableTelemetryEvents(*out);
}

OrtStatus *ort_providers(const OrtApi *a, char ***names, int *n) { return a->GetAvailableProviders(names, n); }
void ort_providers_free(const OrtApi *a, char **names, int n) {
  OrtStatus *s = a->ReleaseAvailableProviders(names, n);
  if (s != NULL) a->ReleaseStatus(s);
}

static OrtStatus *append_cuda(const OrtApi *a, OrtSessionOptions *o, const ort_session_config *c) {
  OrtCUDAProviderOptionsV2 *cuda = NULL;
  TRY(a->CreateCUDAProviderOptions(&cuda));
  OrtStatus *s = a->UpdateCUDAProviderOptions(cuda, c->cuda_keys, c->cuda_values, c->cuda_entries);
  if (s == NULL) s = a->SessionOptionsAppendExecutionProvider_CUDA_V2(o, cuda);
  a->ReleaseCUDAProviderOptions(cuda);
  return s;
}

static OrtStatus *configure(const OrtApi *a, OrtSessionOptions *o, const ort_session_config *c) {
  TRY(a->SetIntraOpNumThreads(o, c->threads));
  TRY(a->SetInterOpNumThreads(o, 1));
  TRY(a->DisableMemPattern(o));  // shapes grow with every token: a plan a length costs more than it saves
  TRY(a->SetSessionExecutionMode(o, ORT_SEQUENTIAL));
  TRY(a->SetSessionGraphOptimizationLevel(o, (GraphOptimizationLevel)c->level));
  for (size_t i = 0; i < c->entries; i++) TRY(a->AddSessionConfigEntry(o, c->keys[i], c->values[i]));
  if (c->cuda) TRY(append_cuda(a, o, c));
  return NULL;
}

OrtStatus *ort_session(const OrtApi *a, OrtEnv *env, const char *path, const ort_session_config *c, OrtSession **out) {
  OrtSessionOptions *o = NULL;
  TRY(a->CreateSessionOptions(&o));
  OrtStatus *s = configure(a, o, c);
  if (s == NULL) s = a->CreateSession(env, path, o, out);
  a->ReleaseSessionOptions(o);
  return s;
}

OrtStatus *ort_value_count(const OrtApi *a, OrtSession *s, int output, size_t *n) {
  return output ? a->SessionGetOutputCount(s, n) : a->SessionGetInputCount(s, n);
}

static OrtStatus *type_info(const OrtApi *a, OrtTypeInfo *t, int *type, int64_t *shape, size_t max, size_t *dims) {
  const OrtTensorTypeAndShapeInfo *info = NULL;
  TRY(a->CastTypeInfoToTensorInfo(t, &info));
  *type = 0;
  *dims = 0;
  if (info == NULL) return NULL; // not a tensor: type 0
  ONNXTensorElementDataType e;
  TRY(a->GetTensorElementType(info, &e));
  *type = (int)e;
  TRY(a->GetDimensionsCount(info, dims));
  if (*dims > max) return NULL;
  return a->GetDimensions(info, shape, *dims);
}

OrtStatus *ort_value_info(const OrtApi *a, OrtSession *s, int output, size_t i, char **name, int *type,
                          int64_t *shape, size_t max, size_t *dims) {
  OrtAllocator *al = NULL;
  TRY(a->GetAllocatorWithDefaultOptions(&al));
  char *n = NULL;
  TRY(output ? a->SessionGetOutputName(s, i, al, &n) : a->SessionGetInputName(s, i, al, &n));
  *name = strdup(n);
  TRY(a->AllocatorFree(al, n));
  OrtTypeInfo *t = NULL;
  TRY(output ? a->SessionGetOutputTypeInfo(s, i, &t) : a->SessionGetInputTypeInfo(s, i, &t));
  OrtStatus *st = type_info(a, t, type, shape, max, dims);
  a->ReleaseTypeInfo(t);
  return st;
}

static int is_heavy(const char *op) {
  static const char *heavy[] = {"MatMulNBits", "GroupQueryAttention", "MatMul", "FusedMatMul", "Gemm", "Attention", "Conv"};
  for (size_t i = 0; i < sizeof heavy / sizeof *heavy; i++)
    if (strcmp(op, heavy[i]) == 0) return 1;
  return 0;
}

OrtStatus *ort_assigned(const OrtApi *a, OrtSession *s, const char *provider, size_t *nodes, size_t *heavy,
                        size_t *all_heavy) {
  const OrtEpAssignedSubgraph *const *graphs = NULL;
  size_t n = 0;
  *nodes = *heavy = *all_heavy = 0;
  TRY(a->Session_GetEpGraphAssignmentInfo(s, &graphs, &n));
  for (size_t i = 0; i < n; i++) {
    const char *ep = NULL;
    const OrtEpAssignedNode *const *list = NULL;
    size_t count = 0;
    TRY(a->EpAssignedSubgraph_GetEpName(graphs[i], &ep));
    TRY(a->EpAssignedSubgraph_GetNodes(graphs[i], &list, &count));
    int ours = strcmp(ep, provider) == 0;
    for (size_t j = 0; j < count; j++) {
      const char *op = NULL;
      TRY(a->EpAssignedNode_GetOperatorType(list[j], &op));
      int h = is_heavy(op);
      *all_heavy += h;
      *nodes += ours;
      *heavy += ours && h;
    }
  }
  return NULL;
}

OrtStatus *ort_memory_info(const OrtApi *a, int cuda, int device, OrtMemoryInfo **out) {
  if (cuda) return a->CreateMemoryInfo("Cuda", OrtDeviceAllocator, device, OrtMemTypeDefault, out);
  return a->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, out);
}

OrtStatus *ort_device_alloc(const OrtApi *a, OrtSession *s, OrtMemoryInfo *m, size_t bytes, OrtAllocator **al, void **p) {
  TRY(a->CreateAllocator(s, m, al));
  OrtStatus *st = a->AllocatorAlloc(*al, bytes, p);
  if (st != NULL) a->ReleaseAllocator(*al);
  return st;
}

void ort_device_free(const OrtApi *a, OrtAllocator *al, void *p) {
  OrtStatus *s = a->AllocatorFree(al, p);
  if (s != NULL) a->ReleaseStatus(s);
  a->ReleaseAllocator(al);
}

OrtStatus *ort_tensor(const OrtApi *a, OrtMemoryInfo *m, void *p, size_t bytes, const int64_t *shape, size_t rank,
                      int type, OrtValue **out) {
  return a->CreateTensorWithDataAsOrtValue(m, p, bytes, shape, rank, (ONNXTensorElementDataType)type, out);
}

OrtStatus *ort_tensor_info(const OrtApi *a, OrtValue *v, void **p, int *type, int64_t *shape, size_t max, size_t *rank) {
  OrtTensorTypeAndShapeInfo *info = NULL;
  TRY(a->GetTensorTypeAndShape(v, &info));
  ONNXTensorElementDataType e = 0;
  OrtStatus *s = a->GetTensorElementType(info, &e);
  if (s == NULL) s = a->GetDimensionsCount(info, rank);
  if (s == NULL && *rank <= max) s = a->GetDimensions(info, shape, *rank);
  if (s == NULL) s = a->GetTensorMutableData(v, p);
  *type = (int)e;
  a->ReleaseTensorTypeAndShapeInfo(info);
  return s;
}

void ort_value_free(const OrtApi *a, OrtValue *v) { a->ReleaseValue(v); }

OrtStatus *ort_binding(const OrtApi *a, OrtSession *s, OrtIoBinding **out) { return a->CreateIoBinding(s, out); }

OrtStatus *ort_bind(const OrtApi *a, OrtIoBinding *b, int output, const char *name, OrtValue *v) {
  return output ? a->BindOutput(b, name, v) : a->BindInput(b, name, v);
}

OrtStatus *ort_bind_device(const OrtApi *a, OrtIoBinding *b, const char *name, OrtMemoryInfo *m) {
  return a->BindOutputToDevice(b, name, m);
}

OrtStatus *ort_bound_output(const OrtApi *a, OrtIoBinding *b, size_t index, OrtValue **out) {
  OrtAllocator *al = NULL;
  TRY(a->GetAllocatorWithDefaultOptions(&al));
  OrtValue **values = NULL;
  size_t n = 0;
  TRY(a->GetBoundOutputValues(b, al, &values, &n));
  *out = NULL;
  for (size_t i = 0; i < n; i++) {
    if (i == index) *out = values[i];
    else a->ReleaseValue(values[i]);
  }
  if (values != NULL) return a->AllocatorFree(al, values);
  return NULL;
}

void ort_binding_free(const OrtApi *a, OrtIoBinding *b) { a->ReleaseIoBinding(b); }

OrtStatus *ort_run_options(const OrtApi *a, OrtRunOptions **out) { return a->CreateRunOptions(out); }
OrtStatus *ort_terminate(const OrtApi *a, OrtRunOptions *o) { return a->RunOptionsSetTerminate(o); }
OrtStatus *ort_run(const OrtApi *a, OrtSession *s, OrtRunOptions *o, OrtIoBinding *b) {
  return a->RunWithBinding(s, o, b);
}
void ort_run_options_free(const OrtApi *a, OrtRunOptions *o) { a->ReleaseRunOptions(o); }

void ort_session_free(const OrtApi *a, OrtSession *s) {
  a->ReleaseSession(s);
#ifdef __GLIBC__
  malloc_trim(0);  // weights were packed on the heap, which glibc would keep
#endif
}
void ort_env_free(const OrtApi *a, OrtEnv *e) { a->ReleaseEnv(e); }
void ort_memory_info_free(const OrtApi *a, OrtMemoryInfo *m) { a->ReleaseMemoryInfo(m); }
