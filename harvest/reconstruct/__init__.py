"""From heat maps of many views to 3D joints with their uncertainty."""
