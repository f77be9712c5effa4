# The server without a distribution: some 5 MB. "make docker" builds the image.
#
#   docker run -p 127.0.0.1:1080:1080 -v /srv/threadsocks:/etc/threadsocks:ro threadsocks
#
# /srv/threadsocks is a folder with socks.conf, and so are its later versions: a file that is
# mounted alone keeps its first version when an editor replaces it. The image has no rules, since
# in a container all clients can have a private address: the rules must say who may connect.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --package threadsocks
RUN packaging/image-files target/release/threadsocks /image

FROM scratch
ARG VERSION
LABEL org.opencontainers.image.title="threadsocks" \
      org.opencontainers.image.description="SOCKS4, SOCKS4A and SOCKS5 proxy made of plain OS threads" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /image /
# A user without a name, as in other images without a distribution.
USER 65532:65532
EXPOSE 1080
HEALTHCHECK --interval=30s --timeout=5s --start-period=5s CMD ["/usr/bin/threadsocks", "--probe", "1080"]
# Docker kills a server 10 s after SIGTERM. After the grace period the server takes up to 3 s.
ENTRYPOINT ["/usr/bin/threadsocks", "--config", "/etc/threadsocks/socks.conf", "--grace", "7s"]
CMD ["1080"]
