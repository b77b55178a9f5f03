"""How a segment is stored: an MP4 for people, an NPZ file of observations and actions for the reward model.

Both are made whole in memory and are the same bytes for the same input, so that a stage that is tried again
stores the same artifacts.
"""

import tempfile
import zipfile
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Frames = NDArray[np.uint8]  # [T, H, W, 3], RGB
Observations = NDArray[Any]  # float32 [T + 1, D], or uint8 [T + 1, C, H, W]: the last C frames at each step

SMALL = 160  # pixels: frames whose shorter side is smaller are enlarged; the page enlarges the others
MAX_UNPACKED = 1 << 30  # bytes: more than any segment; a damaged file must not fill the memory
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip file can name; the real one would change the bytes


def encode_mp4(frames: Frames, fps: float) -> bytes:
    """Return `frames` ([T, H, W, 3], uint8, RGB, T ≥ 1) at `fps` frames a second as an H.264 MP4 file.

    Written for every browser: yuv420p with even sides (the last row or column is repeated), BT.601 colours
    said in the file, and the index in front, so that playing begins before all has come. Frames whose shorter
    side is under 160 pixels are enlarged by a whole number, each pixel to a square. ValueError for anything
    that is no clip.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], not {frames.dtype} {list(frames.shape)}")
    if not 0 < fps <= 1000:
        raise ValueError(f"a clip plays at 0 to 1000 frames a second, not {fps}")
    frames = _presentable(frames)
    # The index can be moved to the front only in a file that can be read again: not in a BytesIO.
    with tempfile.TemporaryDirectory(prefix="lockstep-clip-") as folder:
        path = Path(folder) / "clip.mp4"
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        with av.open(str(path), "w", format="mp4", container_options=options) as container:
            rate = Fraction(fps).limit_denominator(1000)
            stream = container.add_stream("libx264", rate=rate)
            stream.height, stream.width = frames.shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.thread_count = 1  # more threads cut the picture up differently on other machines
            # Without macroblock trees: with them the same frames did not always give the same bytes.
            tuned = {"preset": "veryfast", "crf": "31", "x264-params": "mbtree=0:weightp=0"}
            stream.options = {**tuned, "flags": "+bitexact"}
            stream.color_range, stream.colorspace = 1, 6  # limited range, BT.601: what the conversion makes
            for index, image in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                frame.pts, frame.time_base = index, 1 / rate
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path.read_bytes()


def _presentable(frames: Frames) -> Frames:
    """Enlarge small frames by a whole number and make both sides even."""
    height, width = frames.shape[1:3]
    times = max(1, -(-SMALL // min(height, width)))
    if times > 1:
        frames = frames.repeat(times, axis=1).repeat(times, axis=2)
    height, width = frames.shape[1:3]
    return np.pad(frames, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")


def pack_npz(observations: Observations, actions: NDArray[Any]) -> bytes:
    """Return a segment of T steps as a compressed NPZ file.

    `observations` is float32 [T + 1, ...] (the last one is what the last step led to), `actions` is [T] or
    [T, ...], integers or floats. Stacked frames, uint8 [T + 1, C, H, W], are stored once each, as `frames`
    [T + C, H, W]. ValueError for other shapes and types.
    """
    _check(observations, actions)
    target = BytesIO()
    arrays = {"observations": observations, "actions": actions}
    if observations.dtype == np.uint8:
        del arrays["observations"]
        arrays["frames"] = np.concatenate([observations[0], observations[1:, -1]])
        if not np.array_equal(_stacked(arrays["frames"], len(actions)), observations):
            raise ValueError("each stack of frames must be the one before, moved on by one frame")
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name, array in arrays.items():
            content = BytesIO()
            np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), content.getvalue(), zipfile.ZIP_DEFLATED)
    return target.getvalue()


def unpack_npz(data: bytes) -> tuple[Observations, NDArray[Any]]:
    """Return the observations ([T + 1, ...]) and actions ([T, ...]) of `pack_npz`.

    Stacks of frames are a read-only view of the frames, which lie in memory once.
    ValueError, with what is wrong, for anything else. Nothing in the file is ever run (no pickles).
    """
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
            if size > MAX_UNPACKED:
                raise ValueError(f"it would unpack to {size} bytes")
            stored = "frames" if "frames.npy" in archive.namelist() else "observations"
            observations, actions = (_read_array(archive.read(f"{name}.npy")) for name in (stored, "actions"))
        if stored == "frames":
            observations = _stacked(observations, len(actions))
        _check(observations, actions)
    except Exception as error:  # a zip file can be broken in more ways than its module names
        raise ValueError(f"not a segment of observations and actions: {error}") from error
    return observations, actions


def _stacked(frames: NDArray[np.uint8], steps: int) -> NDArray[np.uint8]:
    """Return stacks [steps + 1, C, H, W] of frames [steps + C, H, W], without copying."""
    stacks = np.lib.stride_tricks.sliding_window_view(frames, len(frames) - steps, axis=0)
    return np.moveaxis(stacks, -1, 1)


def _read_array(content: bytes) -> NDArray[Any]:
    file = BytesIO(content)
    array = np.lib.format.read_array(file, allow_pickle=False, max_header_size=1000)
    if file.read(1):
        raise ValueError("there are bytes after the array")
    return array


def _check(observations: NDArray[Any], actions: NDArray[Any]) -> None:
    if observations.dtype != np.float32 and not (observations.dtype == np.uint8 and observations.ndim == 4):
        raise ValueError(f"observations must be float32, not {observations.dtype}; or uint8 [T + 1, C, H, W]")
    if actions.dtype.kind not in "iuf":
        raise ValueError(f"actions must be numbers, not {actions.dtype}")
    if not observations.ndim or not actions.ndim or len(observations) != len(actions) + 1 or not len(actions):
        raise ValueError(
            f"observations {list(observations.shape)} and actions {list(actions.shape)} "
            "must be [T + 1, ...] and [T, ...] with T of at least 1"
        )
