"""From pictures, or another tool's joints, to people and heat maps."""
