"""Labels out of what a run knows, and the files in which others read them."""

from harvest.labels.make import make_labels
from harvest.labels.teachers import TEACHERS, Evidence, labels_by
from harvest.labels.votes import Votes, VoteStore, read_votes
from harvest.labels.write import write_labels

__all__ = [
    "TEACHERS",
    "Evidence",
    "VoteStore",
    "Votes",
    "labels_by",
    "make_labels",
    "read_votes",
    "write_labels",
]
