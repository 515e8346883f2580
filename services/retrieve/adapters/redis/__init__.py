"""Collections in Redis 8: vector sets, postings in sorted sets, payloads in hashes."""
