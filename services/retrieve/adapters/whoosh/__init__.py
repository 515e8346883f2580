"""``SPARSE_BACKEND=whoosh``: a sparse arm that reads words, beside any store of one process."""
