"""Cleans, parses and chunks documents, and plans queries."""
