# syntax=docker/dockerfile:1
# One image per process from one file:
#   docker build --build-arg SERVICE=retrieve -t ragmesh/retrieve .
# SERVICE: preprocess, retrieve, infer, postprocess or gateway. Each installs only its own extra.
# EXTRAS: back-ends beside it, by comma, such as litellm or triton for infer, faiss or whoosh for
# retrieve. llamacpp and vllm want compilers or CUDA: better a server of their own and its URL.
ARG PYTHON_VERSION=3.11

FROM python:${PYTHON_VERSION}-slim-bookworm AS build
ARG SERVICE
ARG EXTRAS=""
# An additional package index; PyTorch's CPU index makes the retrieve image some gigabytes smaller.
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_EXTRA_INDEX_URL=${PIP_EXTRA_INDEX_URL}
WORKDIR /src
RUN python -m venv /opt/ragmesh
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY protos protos
COPY services services
COPY gateway gateway
COPY cli cli
RUN case "${SERVICE}" in \
      preprocess|infer|postprocess) extras="${SERVICE}"; module="services.${SERVICE}" ;; \
      retrieve) extras="retrieve,embed-torch,onnx,openvino,japanese,redis"; module="services.retrieve" ;; \
      gateway) extras="gateway,cli,postgres"; module="gateway" ;; \
      *) echo "SERVICE must be preprocess, retrieve, infer, postprocess or gateway" >&2; exit 2 ;; \
    esac \
    && /opt/ragmesh/bin/pip install -c requirements.lock ".[${extras}${EXTRAS:+,${EXTRAS}}]" \
    && printf '#!/bin/sh\nexec /opt/ragmesh/bin/python -m %s\n' "${module}" > /opt/ragmesh/bin/serve \
    && chmod 0755 /opt/ragmesh/bin/serve

FROM python:${PYTHON_VERSION}-slim-bookworm
ARG SERVICE
LABEL org.opencontainers.image.title="ragmesh-${SERVICE}" \
      org.opencontainers.image.licenses="Apache-2.0"
# The user exists before the volume, so that a fresh volume belongs to it.
RUN useradd --uid 10001 --home-dir /var/lib/ragmesh --create-home ragmesh \
    && install --directory --owner 10001 --group 10001 --mode 0750 /var/lib/kong
COPY --from=build /opt/ragmesh /opt/ragmesh
ENV PATH=/opt/ragmesh/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HF_HUB_OFFLINE=1 \
    GRPC_VERBOSITY=ERROR \
    RAGMESH_DATA=/var/lib/ragmesh
WORKDIR /var/lib/ragmesh
USER 10001
STOPSIGNAL SIGTERM
CMD ["serve"]
