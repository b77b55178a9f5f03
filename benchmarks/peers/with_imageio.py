"""A clip written by imageio-ffmpeg as it is by default: `python with_imageio.py FRAMES.npy`."""

import os
import sys

import imageio_ffmpeg
import numpy as np
from turn import Clock, serve


def main(path: str) -> None:
    """Write the frames [T, H, W, 3] that lie at `path` whenever asked."""
    frames = np.load(path)

    def work(clock: Clock) -> dict[str, float]:
        clock.restart()
        writer = imageio_ffmpeg.write_frames("clip.mp4", frames.shape[2:0:-1], fps=15)
        writer.send(None)
        for frame in frames:
            writer.send(frame)
        writer.close()
        return {"units": 1, "bytes": os.path.getsize("clip.mp4")}

    serve(work)


if __name__ == "__main__":
    main(sys.argv[1])
