"""Videos whose bytes depend on their pictures alone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

QUALITY = 17  # of x264: about as good as what good cameras write
# Without mbtree, whose assembly reads memory that nobody wrote: with it the same pictures gave other bytes every time.
ENCODER = {"crf": str(QUALITY), "preset": "veryfast", "threads": "1", "x264-params": "mbtree=0"}


class Video:
    """An H.264 file that is filled picture by picture; the same pictures give the same bytes."""

    def __init__(self, path: Path, size_px: tuple[int, int], fps: float) -> None:
        """Begin a file of that size and rate; folders are made."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w")
        rate = Fraction(fps).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate, options=ENCODER)
        self._stream.width, self._stream.height = size_px
        self._stream.pix_fmt = "yuv420p"
        self._stream.thread_count = 1

    def add(self, picture: NDArray[np.uint8]) -> None:
        """Append a picture (H, W, 3) RGB."""
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file."""
        self._container.mux(self._stream.encode())
        self._container.close()


def join_videos(parts: list[Path], out: Path) -> None:
    """Videos one after the other as one, their pictures copied as they are."""
    with av.open(str(out), "w") as target:
        stream, offset = None, 0
        for part in parts:
            with av.open(str(part)) as source:
                video = source.streams.video[0]
                if stream is None:
                    stream = target.add_stream_from_template(video)
                last = offset
                for packet in source.demux(video):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    last = max(last, packet.pts + (packet.duration or 0))
                    packet.stream = stream
                    target.mux(packet)
                offset = last
