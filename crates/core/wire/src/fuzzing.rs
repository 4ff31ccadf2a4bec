//! The bodies of the fuzz targets, shared with the corpus replay.
