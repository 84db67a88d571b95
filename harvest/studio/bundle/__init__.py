"""Makes the bundle of studio assets out of registry packages."""
