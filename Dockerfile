# The image of northbridge: one binary on a distroless base, without a shell, as
# a user without rights, on a file system that may be read-only.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag northbridge .

FROM rust:1.95-bookworm AS build
WORKDIR /northbridge

# The dependencies have a layer of their own, which stands as long as
# Cargo.toml and Cargo.lock do. Tests and benchmarks are no part of the image:
# their targets are cut out, because cargo looks for the files of each.
COPY Cargo.toml Cargo.lock ./
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    sed -i -E '/^\[\[(test|bench)\]\]$/,/^$/d' Cargo.toml && \
    mkdir src && touch src/lib.rs && echo 'fn main() {}' > src/main.rs && \
    cargo build --release --locked && \
    rm -r src

COPY src src
ARG REVISION=unknown
# Files keep their times when they are copied, and older ones than those of the
# first build would look as if they had been built. Symbols would be a tenth of
# the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    find src -exec touch {} + && \
    NORTHBRIDGE_REVISION="$REVISION" cargo build --release --locked && \
    strip --strip-all --output-target=default -o /northbridge/northbridge target/release/northbridge && \
    cp --dereference "$(gcc -print-file-name=libgcc_s.so.1)" /northbridge/libgcc_s.so.1

# glibc, root certificates and time zones, and nothing else: OpenSSL is in the
# binary, and of GCC's libraries it needs one.
FROM gcr.io/distroless/base-nossl-debian12:nonroot
COPY --from=build /northbridge/libgcc_s.so.1 /usr/lib/
COPY --from=build /northbridge/northbridge /usr/bin/northbridge

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="northbridge" \
      org.opencontainers.image.description="Carries an IoT platform's notifications onto Kafka and never loses one that it acknowledged" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"

# Pushes, and probes and metrics.
EXPOSE 8080 8081
# SIGTERM drains. Give it longer than shutdown.deadline_ms, which is 25 s.
STOPSIGNAL SIGTERM
# Live, and not ready: a restart does not bring Kafka back.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
  CMD ["/usr/bin/northbridge", "health"]
ENTRYPOINT ["/usr/bin/northbridge"]
CMD ["ingress"]
