// What ONNX Runtime's CUDA provider needs of the dynamic loader and of the
// CUDA runtime, before a session is created.
#ifndef INFER_ORT_CUDA_H
#define INFER_ORT_CUDA_H

#include "include/onnxruntime_c_api.h"

// ort_origin is the file that the library was loaded from, NULL if unknown.
const char *ort_origin(const OrtApi *a);

// ort_load loads a shared library for good. It returns NULL, or the loader's
// text, which the caller frees.
char *ort_load(const char *path, void **handle);

// ort_gpus asks a loaded CUDA runtime for the number of visible devices. It
// returns a cudaError_t with its text, or -1 when the library has no such
// functions.
int ort_gpus(void *cudart, int *n, const char **text);

#endif
