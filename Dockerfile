# infer in a container:
#   docker build --target vllm -t infer:vllm .          vLLM on CUDA
#   docker build --target onnx-cpu -t infer:onnx-cpu .  ONNX Runtime on the CPU
ARG GO_IMAGE=docker.io/library/golang:1.27.3-bookworm
ARG DEBIAN_IMAGE=docker.io/library/debian:bookworm-slim
ARG VLLM_IMAGE=docker.io/vllm/vllm-openai:v0.32.0

FROM ${GO_IMAGE} AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd ./cmd
COPY internal ./internal
RUN go build -trimpath -buildvcs=false -o /infer ./cmd/infer

# The library is not linked but loaded; fetch.sh checks its hash.
FROM ${DEBIAN_IMAGE} AS library
# Debian keeps no older versions that could be pinned.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-pip \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY scripts/fetch.sh scripts/onnxruntime.txt ./scripts/
RUN scripts/fetch.sh scripts/onnxruntime.txt onnxruntime/capi/libonnxruntime.so.1.32.0 /libonnxruntime.so.1

FROM ${DEBIAN_IMAGE} AS onnx-cpu
LABEL org.opencontainers.image.title="infer" \
      org.opencontainers.image.description="A GPU inference runtime: one model, one port, the OpenAI API (ONNX Runtime on the CPU)" \
      org.opencontainers.image.licenses="Apache-2.0"
# Debian keeps no older versions that could be pinned.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates libstdc++6 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --create-home infer
COPY --from=library /libonnxruntime.so.1 /usr/local/lib/libonnxruntime.so.1
COPY --from=build /infer /usr/local/bin/infer
USER 10001:10001
ENV INFER_ONNX_LIBRARY=/usr/local/lib/libonnxruntime.so.1 INFER_ENGINE=onnx
EXPOSE 8080
# infer reaps its children itself: no init is needed.
ENTRYPOINT ["infer"]
CMD ["serve"]

FROM ${VLLM_IMAGE} AS vllm
LABEL org.opencontainers.image.title="infer" \
      org.opencontainers.image.description="A GPU inference runtime: one model, one port, the OpenAI API (vLLM on CUDA)" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 0:0
RUN useradd --uid 10001 --user-group --create-home infer
COPY --from=build /infer /usr/local/bin/infer
USER 10001:10001
ENV INFER_ENGINE=vllm NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 8080
ENTRYPOINT ["infer"]
CMD ["serve"]
