"""``faiss://``: dense vectors in faiss, sparse ones in numpy, everything durable in SQLite."""
