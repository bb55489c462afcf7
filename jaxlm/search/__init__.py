"""Search by meaning: documents as vectors on disk, and the nearest ones to a query."""
