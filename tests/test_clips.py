"""Clips can be seen and read again, are the same every time, and nothing broken gets through."""

import io
import subprocess
import sys
import zipfile
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from services.agent_trainer.clips import encode_mp4, pack_npz, unpack_npz

RED, GREEN, BLUE, ORANGE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (230, 140, 20), (255, 255, 255)


def decode(data: bytes) -> NDArray[np.uint8]:
    with av.open(io.BytesIO(data)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def moving_square(steps: int = 12, height: int = 240, width: int = 320) -> NDArray[np.uint8]:
    frames = np.full((steps, height, width, 3), 255, np.uint8)
    for index, frame in enumerate(frames):
        frame[40:80, 10 * index : 10 * index + 40] = BLUE
    return frames


@pytest.mark.parametrize("colour", [RED, GREEN, BLUE, ORANGE, WHITE, (0, 0, 0)])
def test_colours_stay_what_they_are(colour: tuple[int, int, int]) -> None:
    shown = decode(encode_mp4(np.full((3, 240, 320, 3), colour, np.uint8), 30))
    assert np.abs(shown.astype(int) - colour).max() <= 6


@pytest.mark.parametrize("steps", [1, 2, 25, 60])
def test_every_frame_is_there_in_order(steps: int) -> None:
    frames = moving_square(steps, 240, 700)
    shown = decode(encode_mp4(frames, 30))
    assert shown.shape == frames.shape
    for index, image in enumerate(shown):
        blue = np.flatnonzero(image[60, :, 0] < 128)
        assert abs(blue[0] - 10 * index) <= 2


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ((240, 320), (240, 320)),
        ((241, 321), (242, 322)),
        ((400, 600), (400, 600)),
        ((84, 84), (168, 168)),
        ((210, 160), (210, 160)),
        ((160, 158), (320, 316)),
        ((7, 9), (162, 208)),
        ((1, 1), (160, 160)),
    ],
)
def test_sides_are_even_and_small_frames_enlarged(given: tuple[int, int], shown: tuple[int, int]) -> None:
    frames = np.full((2, *given, 3), 90, np.uint8)
    assert decode(encode_mp4(frames, 10)).shape == (2, *shown, 3)


def test_enlarging_does_not_smooth() -> None:
    board = (np.indices((24, 24)).sum(0) % 2 * 255).astype(np.uint8)  # each pixel unlike its neighbours
    shown = decode(encode_mp4(board[None, :, :, None].repeat(3, 3), 10))[0, :, :, 0]
    inner = shown.reshape(24, 7, 24, 7)[:, 2:5, :, 2:5].astype(int)  # the middle of each square
    assert np.abs(inner - board[:, None, :, None]).max() < 40


def test_the_stream_is_what_browsers_play() -> None:
    with av.open(io.BytesIO(encode_mp4(moving_square(), 12.5))) as container:
        video = container.streams.video[0]
        assert (video.codec_context.name, video.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert float(video.average_rate or 0) == 12.5
        assert video.duration is not None
        assert video.time_base is not None
        assert float(video.duration * video.time_base) == pytest.approx(12 / 12.5)
        assert len(container.streams) == 1


def test_the_index_is_in_front() -> None:
    data = encode_mp4(moving_square(), 30)
    boxes, at = [], 0
    while at < len(data):
        boxes.append(data[at + 4 : at + 8].decode())
        at += int.from_bytes(data[at : at + 4], "big")
    assert boxes.index("moov") < boxes.index("mdat")


SAME = """
import hashlib
from services.agent_trainer.clips import encode_mp4, pack_npz
from tests.test_clips import moving_square, segment
print(hashlib.sha256(encode_mp4(moving_square(), 30) + pack_npz(*segment())).hexdigest())
"""


def segment(steps: int = 25) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    random = np.random.default_rng(3)
    return random.normal(size=(steps + 1, 4)).astype(np.float32), random.integers(0, 2, steps)


def test_the_same_input_gives_the_same_bytes() -> None:
    def run() -> str:
        command = [sys.executable, "-W", "error", "-c", SAME]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    assert run() == run()
    assert encode_mp4(moving_square(), 30) == encode_mp4(moving_square(), 30)
    assert encode_mp4(moving_square(), 30) != encode_mp4(moving_square()[::-1], 30)


@pytest.mark.parametrize(
    ("frames", "fps", "wrong"),
    [
        (np.zeros((0, 8, 8, 3), np.uint8), 30.0, "frames must be"),
        (np.zeros((8, 8, 3), np.uint8), 30.0, "frames must be"),
        (np.zeros((2, 8, 8, 4), np.uint8), 30.0, "frames must be"),
        (np.zeros((2, 8, 8, 3), np.float32), 30.0, "frames must be"),
        (np.zeros((2, 8, 8, 3), np.uint8), 0.0, "a clip plays at"),
        (np.zeros((2, 8, 8, 3), np.uint8), float("nan"), "a clip plays at"),
    ],
)
def test_what_is_no_clip_is_refused(frames: NDArray[Any], fps: float, wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        encode_mp4(frames, fps)


@pytest.mark.parametrize("shape", [(4,), (4, 84, 84), (1,), ()])
@pytest.mark.parametrize("actions", [np.arange(5), np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3)])
def test_a_segment_comes_back(shape: tuple[int, ...], actions: NDArray[Any]) -> None:
    observations = np.random.default_rng(0).random((6, *shape), np.float32)
    got_observations, got_actions = unpack_npz(pack_npz(observations, actions))
    np.testing.assert_array_equal(got_observations, observations)
    np.testing.assert_array_equal(got_actions, actions)
    assert (got_observations.dtype, got_actions.dtype) == (observations.dtype, actions.dtype)


def test_numpy_reads_it_too() -> None:
    observations, actions = segment()
    with np.load(io.BytesIO(pack_npz(observations, actions)), allow_pickle=False) as archive:
        assert sorted(archive) == ["actions", "observations"]
        np.testing.assert_array_equal(archive["observations"], observations)


def npz(**arrays: NDArray[Any]) -> bytes:
    """Return what NumPy itself writes: any arrays, checked by nobody."""
    file = io.BytesIO()
    np.savez(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


FLOATS, NUMBERS = np.zeros((6, 4), np.float32), np.zeros(5, np.int64)


@pytest.mark.parametrize(
    ("data", "wrong"),
    [
        (b"", "not a zip file"),
        (b"hello", "not a zip file"),
        (npz(observations=FLOATS), "actions"),
        (npz(actions=NUMBERS), "observations"),
        (npz(observations=FLOATS[:5], actions=NUMBERS), r"\[5, 4\] and actions \[5\] must be"),
        (npz(observations=FLOATS[:1], actions=NUMBERS[:0]), "T of at least 1"),
        (npz(observations=np.float32(3), actions=NUMBERS), "must be"),
        (npz(observations=FLOATS.astype(float), actions=NUMBERS), "must be float32, not float64"),
        (npz(observations=FLOATS, actions=NUMBERS.astype(str)), "must be numbers"),
        (npz(observations=FLOATS, actions=np.array([None] * 5)), "allow_pickle=False"),
    ],
)
def test_what_is_no_segment_is_refused(data: bytes, wrong: str) -> None:
    with pytest.raises(ValueError, match=f"not a segment of observations and actions: .*{wrong}"):
        unpack_npz(data)


def test_a_bomb_is_not_unpacked() -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name in ("observations.npy", "actions.npy"):
            with archive.open(name, "w", force_zip64=True) as member:
                for _ in range(600):
                    member.write(b"\0" * (1 << 20))
    with pytest.raises(ValueError, match="would unpack to 1258291200 bytes"):
        unpack_npz(file.getvalue())


@pytest.mark.parametrize(
    "pack", [lambda: pack_npz(FLOATS[:5], NUMBERS), lambda: pack_npz(FLOATS, NUMBERS[:0])]
)
def test_nothing_wrong_is_packed(pack: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        pack()


GOOD = pack_npz(*segment())


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.integers(0, len(GOOD) - 1).map(lambda end: GOOD[:end]))
def test_torn_files_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a segment"):
        unpack_npz(data)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_changed_byte_is_refused_or_harmless(at: int, change: int) -> None:
    data = bytearray(GOOD)
    data[at] ^= change
    try:
        observations, actions = unpack_npz(bytes(data))
    except ValueError:
        return
    # A byte that carries nothing: a date, a flag.
    np.testing.assert_array_equal(observations, segment()[0])
    np.testing.assert_array_equal(actions, segment()[1])
