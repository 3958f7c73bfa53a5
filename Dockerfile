# Two images: `fleet` (worker, Flower, simulator, command line) and `redis` (Redis with Fleet's settings).
# The bases are build arguments, so that a mirror or a digest can be named without touching this file.
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm
ARG REDIS_IMAGE=redis:7.2.7-bookworm


FROM ${REDIS_IMAGE} AS redis

COPY deploy/redis.conf /etc/fleet/redis.conf
# A new named volume takes its owner from the folder that it covers.
RUN install -d -o redis -g redis -m 700 /data
USER redis
WORKDIR /data
CMD ["redis-server", "/etc/fleet/redis.conf"]


FROM ${PYTHON_IMAGE} AS build

ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
RUN python -m venv /opt/fleet
# What Fleet needs changes less often than Fleet: a layer of its own.
# Each file is held against its hash: an index that gives out another one under the same name ends the build here.
COPY requirements.hashes ./
RUN /opt/fleet/bin/pip install --require-hashes --no-deps --requirement requirements.hashes
COPY pyproject.toml README.md LICENSE ./
COPY fleet fleet
COPY workers workers
RUN /opt/fleet/bin/pip install --no-deps --no-build-isolation --no-index . \
    && /opt/fleet/bin/pip check && /opt/fleet/bin/pip uninstall --yes setuptools pip


FROM ${PYTHON_IMAGE} AS fleet

RUN useradd --uid 10001 --user-group --no-create-home --home-dir /var/lib/fleet --shell /usr/sbin/nologin fleet \
    && install -d -o fleet -g fleet -m 700 /var/lib/fleet \
    && install -d /work
COPY --from=build /opt/fleet /opt/fleet
ENV PATH=/opt/fleet/bin:$PATH FLEET_HOME=/var/lib/fleet PYTHONUNBUFFERED=1
USER fleet
# fleet.toml and your own bots are looked for here; mount them read-only.
WORKDIR /work
# A worker reports that it works; Flower and the simulator have checks of their own in docker-compose.yml.
HEALTHCHECK --interval=30s --timeout=20s --start-period=30s CMD fleet health >/dev/null || exit 1
CMD ["celery", "-A", "fleet", "worker"]
