"""The one error that calibrations raise."""

from collections.abc import Iterator
from contextlib import contextmanager


class CalibrationError(ValueError):
    """A camera or rig that cannot be used; the message is one line that names the camera and says what to do."""


@contextmanager
def telling_of(what: str) -> Iterator[None]:
    """What goes wrong in reading something, as a CalibrationError of it; one that tells already stays as it is."""
    try:
        yield
    except CalibrationError:
        raise
    except (LookupError, TypeError, ValueError) as error:
        raise CalibrationError(f"{what} lacks a part or has one of the wrong form ({error!r})") from None
