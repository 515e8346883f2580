"""Routes generation requests to inference engines."""
