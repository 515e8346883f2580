"""One module per engine behind the ports."""
