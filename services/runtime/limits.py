"""Sizes that both ends of a call agree on."""

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""Largest gRPC message, either way."""

UPLOAD_FRAME_BYTES = 64 * 1024
"""Size of a frame of a client-streaming upload."""
