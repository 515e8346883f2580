"""What Kong would do with the rendered file, done by the gateway when no Kong stands in front."""
