"""A page on which people tell what networks cannot yet: which of two joints is nearer to the camera."""
