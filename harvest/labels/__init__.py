"""Labels out of what a run knows, and the files in which others read them."""

from harvest.labels.make import make_labels
from harvest.labels.teachers import TEACHERS, Evidence, labels_by
from harvest.labels.write import write_labels

__all__ = ["TEACHERS", "Evidence", "labels_by", "make_labels", "write_labels"]
