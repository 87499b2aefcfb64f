#define _GNU_SOURCE
#include "cuda.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

const char *ort_origin(const OrtApi *a) {
  Dl_info info;
  return dladdr((void *)a->CreateEnv, &info) != 0 ? info.dli_fname : NULL;
}

// RTLD_LOCAL is enough: a later library that needs this one finds it by its
// SONAME, and resolves its symbols through its own list of needed libraries.
char *ort_load(const char *path, void **handle) {
  *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (*handle != NULL) return NULL;
  const char *e = dlerror();
  return strdup(e != NULL ? e : "dlopen gave no reason");
}

int ort_gpus(void *cudart, int *n, const char **text) {
  int (*count)(int *) = (int (*)(int *))dlsym(cudart, "cudaGetDeviceCount");
  const char *(*describe)(int) = (const char *(*)(int))dlsym(cudart, "cudaGetErrorString");
  *n = 0;
  *text = "";
  if (count == NULL || describe == NULL) return -1;
  int err = count(n);
  if (err != 0) *text = describe(err);
  return err;
}
