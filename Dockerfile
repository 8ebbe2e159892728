# Tollgate in a container: built on Debian 12, run on Debian 12 slim as an unprivileged user.
#   docker build -t tollgate .
#   docker run -p 8080:8080 -v $PWD/tollgate.yaml:/etc/tollgate/tollgate.yaml:ro tollgate
# redis-server is there for stores of the form embedded:DIR; its service is never started.

FROM debian:12-slim AS build
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      g++ cmake ninja-build pkg-config ca-certificates \
      libevent-dev libssl-dev libcurl4-openssl-dev libfmt-dev libspdlog-dev libyaml-cpp-dev libsimdjson-dev libcli11-dev \
      libboost1.81-dev prometheus-cpp-dev libhiredis-dev libxxhash-dev libsqlite3-dev libgtest-dev libgmock-dev libbenchmark-dev \
      ccache git redis-server nginx-light wrk python3 openssl bolt-19 \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY CMakeLists.txt CMakePresets.json dev ./
COPY metering metering
COPY proxy proxy
COPY config config
COPY bench/compare bench/compare
RUN ./dev build --tuned

FROM debian:12-slim
# libevent no older than 2.1.12-stable-8+deb12u1: the first with the security fixes of September 2026.
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      ca-certificates libevent-2.1-7 libevent-pthreads-2.1-7 libssl3 libcurl4 libfmt9 libspdlog1.10 libyaml-cpp0.7 \
      libsimdjson14 libprometheus-cpp-core1.0 libhiredis0.14 libxxhash0 libsqlite3-0 redis-server \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid 10001 tollgate \
 && useradd --system --uid 10001 --gid 10001 --home-dir /var/lib/tollgate --create-home --shell /usr/sbin/nologin tollgate \
 && mkdir -p /etc/tollgate
COPY --from=build /source/build/tuned/tollgate /usr/local/bin/tollgate
COPY LICENSE /usr/share/doc/tollgate/LICENSE
USER 10001:10001
WORKDIR /var/lib/tollgate
VOLUME /var/lib/tollgate
EXPOSE 8080 8443 9901
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["serve", "-c", "/etc/tollgate/tollgate.yaml"]
