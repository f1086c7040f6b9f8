# docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" -t bearward:0.1.0 .

# One base for both stages: a venv only works beside the very interpreter that it was made with.
FROM python:3.13-slim-trixie AS base


FROM base AS build
# Without pip of its own: what installs packages has no place in the image that runs.
RUN python -m venv --without-pip /opt/bearward
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY src src
# The bytecode is written once, here: at run time the root may be read-only, and the user owns nothing. It is
# never compared with its source, because tools that make layers reproducible reset the files' times.
RUN pip --python /opt/bearward/bin/python install --no-cache-dir --no-compile "/src[uvloop]" \
 && python -m compileall -q --invalidation-mode unchecked-hash /opt/bearward/lib


FROM base
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.title="bearward" \
      org.opencontainers.image.description="A local reverse proxy that injects OAuth 2.0 bearer tokens" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /opt/bearward /opt/bearward
# SAFEPATH: no file in the working folder is ever imported.
ENV PATH="/opt/bearward/bin:${PATH}" \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1
# A number, so that Kubernetes can tell that it is not root (runAsNonRoot).
USER 65532:65532

# /livez, not /readyz: engines replace a container that is unhealthy, and a new one cannot bring an identity
# provider back; it only loses tokens and knocks again with a password. Where others must wait for the first
# token (depends_on), override this with /readyz. The port is `admin` of the config, as by default.
# No shell, and no proxy from the environment, which would be asked for 127.0.0.1 too.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-I", "-c", "import urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:9465/livez', timeout=2)"]

# Exec form: bearward is process 1 and gets the signals itself. It takes up to 30 s to finish what is in flight,
# then ends its sessions; `docker stop` kills after 10 s unless told otherwise (--stop-timeout 60).
STOPSIGNAL SIGTERM
ENTRYPOINT ["python", "-m", "bearward"]
CMD ["run", "-c", "/etc/bearward/config.yaml"]
