"""The one error that calibrations raise."""


class CalibrationError(ValueError):
    """A camera or rig that cannot be used; the message is one line that names the camera and says what to do."""
