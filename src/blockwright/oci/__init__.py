"""Container images: manifests, layers, and the tree that all layers together are."""
