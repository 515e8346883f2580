"""One module per command; each is given its settings and screen and calls what does the work."""
