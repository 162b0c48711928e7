"""A directory tree as content-addressed files: the manifest, packing, git as a source, the cache of digests."""
