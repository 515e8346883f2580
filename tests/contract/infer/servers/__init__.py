"""Scripted servers, one file a vendor, written to the vendors' public APIs."""
