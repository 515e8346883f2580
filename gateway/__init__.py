"""The REST, SSE and gRPC face of the mesh; it conducts the services."""
