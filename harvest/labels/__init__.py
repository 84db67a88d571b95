"""Labels out of selected 3D joints, and the files in which others read them."""

from harvest.labels.make import make_labels
from harvest.labels.write import write_labels

__all__ = ["make_labels", "write_labels"]
