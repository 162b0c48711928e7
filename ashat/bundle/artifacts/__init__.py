"""Pack what was built elsewhere: archives, wheels and OCI images on disk, read within bounds."""
