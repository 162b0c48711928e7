"""Objects, bundles and release directories on a node's disk."""
