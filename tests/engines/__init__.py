"""Tests against real engines: `make test-engines` installs and runs them."""
