"""Resolves citations, scores support and formats answers."""
