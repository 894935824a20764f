"""The HTTP port: Prometheus metrics and the health check, in the broker's own event loop."""
