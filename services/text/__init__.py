"""Text analysis that several services share: pure functions, no wire, no engine (ADR 0003)."""
