"""Answers and summaries by choosing sentences: no model, pure functions."""
