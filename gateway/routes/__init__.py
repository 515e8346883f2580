"""One module per resource: a thin face each, on `gateway.pipeline`."""
