"""Embeds, indexes and searches documents."""
