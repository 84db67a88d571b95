"""Our own weights; docs/hourglass.md says where they come from."""
