"""Collections of documents: embedding, indexing, hybrid search."""
