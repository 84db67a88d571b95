"""Built-in skeletons, one YAML file each."""
