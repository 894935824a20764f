# syntax=docker/dockerfile:1

FROM python:3.13-slim AS build
WORKDIR /src
# What is installed changes seldom: its layer is kept while only the code changes.
COPY pyproject.toml README.md LICENSE ./
COPY broker/__init__.py broker/
COPY exchanges/__init__.py exchanges/
RUN python -m venv /opt/leveret && /opt/leveret/bin/pip install --no-cache-dir .
COPY broker broker
COPY exchanges exchanges
RUN /opt/leveret/bin/pip install --no-cache-dir --no-deps --force-reinstall .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin leveret \
    && install --directory --owner=leveret --group=leveret /data
COPY --from=build /opt/leveret /opt/leveret
ENV PATH="/opt/leveret/bin:$PATH" PYTHONUNBUFFERED=1
# By number, so that Kubernetes can see that it is not root.
USER 10001
VOLUME /data
EXPOSE 5672 15672
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --start-interval=1s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:15672/health', timeout=2)"]
ENTRYPOINT ["leveret", "serve", "--host", "0.0.0.0", "--http-host", "0.0.0.0", "--data-dir", "/data"]
