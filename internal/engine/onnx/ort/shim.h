// Calls into ONNX Runtime, whose C API is a table of function pointers that Go
// cannot call. Every function returns NULL or an error that the caller frees
// with ort_status_free.
#ifndef INFER_ORT_SHIM_H
#define INFER_ORT_SHIM_H

#include <stddef.h>
#include <stdint.h>

#include "include/onnxruntime_c_api.h"

typedef struct {
  void *handle;          // of dlopen; never closed, the library keeps threads
  const OrtApi *api;     // table of ORT_API_VERSION
  const char *version;   // of the library
  char *error;           // text of dlopen or dlsym, freed by the caller
} ort_lib;

// ort_open loads the library. error is set when it cannot be loaded; api is
// NULL while version is set when the library is too old.
ort_lib ort_open(const char *path);

const char *ort_status_message(const OrtApi *a, OrtStatus *s);
int ort_status_code(const OrtApi *a, OrtStatus *s);
void ort_status_free(const OrtApi *a, OrtStatus *s);

OrtStatus *ort_env(const OrtApi *a, uintptr_t log_handle, int level, OrtEnv **out);
OrtStatus *ort_providers(const OrtApi *a, char ***names, int *n);
void ort_providers_free(const OrtApi *a, char **names, int n);

typedef struct {
  int threads;
  int level;             // GraphOptimizationLevel
  const char **keys;     // session config entries
  const char **values;
  size_t entries;
  int cuda;              // append the CUDA provider
  const char **cuda_keys;
  const char **cuda_values;
  size_t cuda_entries;
} ort_session_config;

OrtStatus *ort_session(const OrtApi *a, OrtEnv *env, const char *path, const ort_session_config *c, OrtSession **out);

// ort_value_info describes input (output = 0) or output i. name is freed with
// free. At most max dimensions are stored; *dims is the true rank.
OrtStatus *ort_value_count(const OrtApi *a, OrtSession *s, int output, size_t *n);
OrtStatus *ort_value_info(const OrtApi *a, OrtSession *s, int output, size_t i, char **name, int *type,
                          int64_t *shape, size_t max, size_t *dims);

// ort_assigned counts the nodes that a provider took, and those of them whose
// operator does the heavy work.
OrtStatus *ort_assigned(const OrtApi *a, OrtSession *s, const char *provider, size_t *nodes, size_t *heavy,
                        size_t *all_heavy);

OrtStatus *ort_memory_info(const OrtApi *a, int cuda, int device, OrtMemoryInfo **out);
OrtStatus *ort_device_alloc(const OrtApi *a, OrtSession *s, OrtMemoryInfo *m, size_t bytes, OrtAllocator **al, void **p);
void ort_device_free(const OrtApi *a, OrtAllocator *al, void *p);

OrtStatus *ort_tensor(const OrtApi *a, OrtMemoryInfo *m, void *p, size_t bytes, const int64_t *shape, size_t rank,
                      int type, OrtValue **out);
OrtStatus *ort_tensor_info(const OrtApi *a, OrtValue *v, void **p, int *type, int64_t *shape, size_t max, size_t *rank);
void ort_value_free(const OrtApi *a, OrtValue *v);

OrtStatus *ort_binding(const OrtApi *a, OrtSession *s, OrtIoBinding **out);
OrtStatus *ort_bind(const OrtApi *a, OrtIoBinding *b, int output, const char *name, OrtValue *v);
OrtStatus *ort_bind_device(const OrtApi *a, OrtIoBinding *b, const char *name, OrtMemoryInfo *m);
OrtStatus *ort_bound_output(const OrtApi *a, OrtIoBinding *b, size_t index, OrtValue **out);
void ort_binding_free(const OrtApi *a, OrtIoBinding *b);

OrtStatus *ort_run_options(const OrtApi *a, OrtRunOptions **out);
OrtStatus *ort_terminate(const OrtApi *a, OrtRunOptions *o);
OrtStatus *ort_run(const OrtApi *a, OrtSession *s, OrtRunOptions *o, OrtIoBinding *b);
void ort_run_options_free(const OrtApi *a, OrtRunOptions *o);

void ort_session_free(const OrtApi *a, OrtSession *s);
void ort_env_free(const OrtApi *a, OrtEnv *e);
void ort_memory_info_free(const OrtApi *a, OrtMemoryInfo *m);

#endif
