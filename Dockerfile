# The image of northbridge: one binary on a distroless base, without a shell, run
# as an unprivileged user, on a file system that may be read-only.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag northbridge .
#
# Base images are tags here, so that a build gets their security updates. A release
# gives the digests that the tags had when it began.
ARG BUILD_IMAGE=rust:1.95-bookworm
ARG BASE_IMAGE=gcr.io/distroless/base-nossl-debian12:nonroot

FROM ${BUILD_IMAGE} AS build
WORKDIR /northbridge

# Writes the list of dependencies into the program, where scanners of images look for it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo install --locked cargo-auditable@0.7.7

# The dependencies have a layer of their own, cached until Cargo.toml or
# Cargo.lock changes. Tests and benchmarks are not part of the image: their
# targets are removed, because cargo requires the files of every target, and so does
# the workspace's member that is not built here.
COPY Cargo.toml Cargo.lock ./
COPY fuzz/Cargo.toml fuzz/fuzz.rs fuzz/
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    sed -i -E '/^\[\[(test|bench)\]\]$/,/^$/d' Cargo.toml && \
    mkdir src && touch src/lib.rs && echo 'fn main() {}' > src/main.rs && \
    cargo auditable build --release --locked && \
    rm -r src

COPY src src
ARG REVISION=unknown
# Copied files keep their modification times; without `touch`, cargo would take
# older ones for already built. Symbols would be a tenth of the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    find src -exec touch {} + && \
    NORTHBRIDGE_REVISION="$REVISION" cargo auditable build --release --locked && \
    strip --strip-all --output-target=default -o /northbridge/northbridge target/release/northbridge && \
    cp --dereference "$(gcc -print-file-name=libgcc_s.so.1)" /northbridge/libgcc_s.so.1 && \
    mkdir /northbridge/state

# glibc, root certificates and time zones, and nothing else: OpenSSL is linked
# statically, and libgcc_s is the only other library that the binary needs.
FROM ${BASE_IMAGE}
COPY --from=build /northbridge/libgcc_s.so.1 /usr/lib/
COPY --from=build /northbridge/northbridge /usr/bin/northbridge
COPY LICENSE deploy/third-party/NOTICES.txt deploy/third-party/sbom.cdx.json /usr/share/doc/northbridge/
# A volume for a spool is writable if it is mounted here.
COPY --from=build --chown=65532:65532 /northbridge/state /var/lib/northbridge

ARG BASE_IMAGE
ARG VERSION=0.2.0
ARG REVISION=unknown
# Where the revision is, and when it was committed.
ARG SOURCE=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="northbridge" \
      org.opencontainers.image.description="Stores the notifications that an IoT platform pushes over HTTP in Kafka, and never loses one that it has acknowledged" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.created="$CREATED" \
      org.opencontainers.image.base.name="$BASE_IMAGE"

# 8080: pushes. 8081: probes and metrics.
EXPOSE 8080 8081
# SIGTERM drains: allow more than shutdown.deadline_ms, which is 25 s.
STOPSIGNAL SIGTERM
# Liveness, not readiness: a restart does not bring Kafka back.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["/usr/bin/northbridge", "health"]
ENTRYPOINT ["/usr/bin/northbridge"]
CMD ["ingress"]
