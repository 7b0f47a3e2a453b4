# latentd as an image. Targets: `cpu` (the default) and `cuda` (x86-64 alone). How to run it: deploy/README.md.
# `deploy/rehearse.py` walks these steps without a container engine; it knows the instructions used here and no others.

# --- ONNX Runtime, out of the wheel whose digest setup/onnxruntime.py pins
FROM python:3.12-slim-bookworm AS onnxruntime
WORKDIR /build
COPY setup/ setup/
RUN python3 setup/onnxruntime.py
RUN install -D --mode 0755 .onnxruntime/libonnxruntime.so.* /out/libonnxruntime.so

FROM python:3.12-slim-bookworm AS onnxruntime-cuda
WORKDIR /build
COPY setup/ setup/
RUN python3 setup/onnxruntime.py --cuda
RUN install -D --mode 0755 --target-directory /out .onnxruntime/cuda/* && mv /out/libonnxruntime.so.* /out/libonnxruntime.so

# --- the program; its symbols stay in it, so that a backtrace names lines
FROM rust:1.95-slim-bookworm AS program
WORKDIR /build
COPY Cargo.toml Cargo.lock build.rs ./
COPY proto/ proto/
COPY migrations/ migrations/
COPY src/ src/
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target cargo build --release --locked && install -D target/release/latentd /out/latentd

# --- CUDA 13 and cuDNN 9, which ONNX Runtime's provider wants
FROM nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04 AS cuda
RUN install --directory --owner 10001 --group 10001 --mode 0750 /data
COPY --from=onnxruntime-cuda /out/ /opt/onnxruntime/lib/
COPY --from=program /out/latentd /usr/local/bin/latentd
COPY models/ /models/
COPY zoo/recordings/simulated-cortex/ /recordings/simulated-cortex/
COPY LICENSE /usr/share/doc/latentd/LICENSE
ENV LATENTD_MODELS=/models LATENTD_DATA=/data LATENTD_HTTP=0.0.0.0:8080 LATENTD_GRPC=0.0.0.0:8081 LATENTD_LOG_FORMAT=json
WORKDIR /data
USER 10001:10001
EXPOSE 8080 8081
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=3 CMD ["latentd", "ready"]
LABEL org.opencontainers.image.title="latentd" org.opencontainers.image.description="Serves trained encoders and decoders to streamed neural data, on CUDA" org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["latentd"]
CMD ["serve"]

# --- the CPU alone: Debian, the program, ONNX Runtime, the bundled models
FROM debian:bookworm-slim AS cpu
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libstdc++6 && rm -rf /var/lib/apt/lists/*
RUN install --directory --owner 10001 --group 10001 --mode 0750 /data
COPY --from=onnxruntime /out/ /opt/onnxruntime/lib/
COPY --from=program /out/latentd /usr/local/bin/latentd
COPY models/ /models/
COPY zoo/recordings/simulated-cortex/ /recordings/simulated-cortex/
COPY LICENSE /usr/share/doc/latentd/LICENSE
ENV LATENTD_MODELS=/models LATENTD_DATA=/data LATENTD_HTTP=0.0.0.0:8080 LATENTD_GRPC=0.0.0.0:8081 LATENTD_LOG_FORMAT=json
WORKDIR /data
USER 10001:10001
EXPOSE 8080 8081
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s --retries=3 CMD ["latentd", "ready"]
LABEL org.opencontainers.image.title="latentd" org.opencontainers.image.description="Serves trained encoders and decoders to streamed neural data" org.opencontainers.image.licenses="Apache-2.0"
ENTRYPOINT ["latentd"]
CMD ["serve"]
