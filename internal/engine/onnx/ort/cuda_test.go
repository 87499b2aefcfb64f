package ort

import (
	"errors"
	"testing"
)

// TestExplain reads the loader's texts as glibc 2.28 and later write them.
func TestExplain(t *testing.T) {
	for text, want := range map[string]string{
		"": "",
		"libcublas.so.13: cannot open shared object file: No such file or directory":             "libcublas.so.13 is missing (PyPI package nvidia-cublas)",
		"libcublasLt.so.13: cannot open shared object file: No such file or directory":           "libcublasLt.so.13 is missing (PyPI package nvidia-cublas)",
		"/x/cuda/libcudart.so.13: cannot open shared object file: No such file or directory":     "libcudart.so.13 is missing (PyPI package nvidia-cuda-runtime)",
		"libcudnn.so.9: cannot open shared object file: No such file or directory":               "libcudnn.so.9 is missing (PyPI package nvidia-cudnn-cu13)",
		"libcuda.so.1: cannot open shared object file: No such file or directory":                "no NVIDIA driver (libcuda.so.1)",
		"libstrange.so.2: cannot open shared object file: No such file or directory":             "libstrange.so.2 is missing",
		"/x/libcublas.so.13: file too short":                                                     "/x/libcublas.so.13: file too short",
		"/x/libcublas.so.13: cannot open shared object file: Permission denied":                  "/x/libcublas.so.13: cannot open shared object file: Permission denied",
		"/x/libcurand.so.10: undefined symbol: cudaFree, version libcudart.so.13":                "/x/libcurand.so.10: undefined symbol: cudaFree, version libcudart.so.13",
		"/lib/libm.so.6: version `GLIBC_2.38' not found (required by /x/cuda/libcublasLt.so.13)": "/lib/libm.so.6: version `GLIBC_2.38' not found (required by /x/cuda/libcublasLt.so.13)",
	} {
		if got := explain(text); got != want {
			t.Errorf("explain(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestWhatIsAboutCUDA(t *testing.T) {
	for text, want := range map[string]bool{
		"CUDA failure 2: out of memory ; GPU=0":                       true,
		"Failed to load library libonnxruntime_providers_cuda.so":     true,
		"Load model from m.onnx failed:Protobuf parsing failed.":      false,
		"This is an invalid model. Error: Duplicate definition of x.": false,
	} {
		if got := aboutCUDA(errors.New(text)); got != want {
			t.Errorf("aboutCUDA(%q) = %t", text, got)
		}
	}
}

func TestNotOnCUDAIsNoCUDA(t *testing.T) {
	if !errors.Is(ErrNotOnCUDA, ErrNoCUDA) || !errors.Is(&CUDAFault{}, ErrNoCUDA) {
		t.Error("callers that ask for ErrNoCUDA would miss a cause")
	}
}
