"""A box of a 4:2:0 picture is read and replaced as RGB; no other sample changes."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from skimage import data

from media import ffmpeg
from media.planes import ORIGIN, around, matrix_of, replace, samples
from media.video import Video
from media.writer import VideoWriter

BOX = np.array([61, 50, 141, 151])


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("planes") / "face.mp4"
    with VideoWriter(path, 25, (256, 192)) as writer:
        for shift in range(3):
            writer.write(np.ascontiguousarray(data.astronaut()[shift : shift + 192, 60:316]))
    return path


def picture_of(video: Path) -> ffmpeg.VideoFrame:
    picture = next(Video(video).pictures([1]))
    assert isinstance(picture, ffmpeg.VideoFrame)
    return picture


def planes(frame: Any) -> list[np.ndarray]:
    return samples(frame, ORIGIN, np.array([frame.width, frame.height]))


def test_region_is_even_and_holds_the_box_with_a_margin(video: Path) -> None:
    picture = picture_of(video)
    region = around(picture, BOX)
    assert region.corner.tolist() == [56, 46] and region.rgb.shape == (110, 90, 3)
    assert region.box.tolist() == [5, 4, 85, 105]
    region = around(picture, np.array([0, 1, 256, 192]))
    assert region.corner.tolist() == [0, 0] and region.rgb.shape == (192, 256, 3)


def test_region_is_read_as_in_the_whole_picture(video: Path) -> None:
    region = around(picture_of(video), BOX)
    left, top, right, bottom = region.box
    x0, y0, x1, y1 = BOX
    whole = next(Video(video).frames([1]))[y0:y1, x0:x1]
    difference = np.abs(region.rgb[top:bottom, left:right].astype(int) - whole)
    assert difference.mean() < 0.2 and difference.max() < 10, "rounding of interpolated colours"


def test_only_samples_inside_the_box_change(video: Path) -> None:
    picture = picture_of(video)
    region = around(picture, BOX)
    before = [plane.copy() for plane in planes(picture)]
    replaced = replace(picture, region, 255 - region.rgb)
    for plane, new, old, step in zip(planes(picture), planes(replaced), before, (1, 2, 2), strict=True):
        np.testing.assert_array_equal(plane, old, err_msg="the decoder may still need it")
        changed_y, changed_x = np.nonzero(new != old)
        assert changed_x.size > 1000 / step**2
        assert step * changed_x.min() >= BOX[0] and step * changed_x.max() + step <= BOX[2]
        assert step * changed_y.min() >= BOX[1] and step * changed_y.max() + step <= BOX[3]


def test_region_put_back_unchanged_stays_nearly_the_same(video: Path) -> None:
    picture = picture_of(video)
    region = around(picture, BOX)
    replaced = replace(picture, region, region.rgb)
    for plane, new in zip(planes(picture), planes(replaced), strict=True):
        assert np.abs(plane.astype(int) - new).mean() < 0.5


def test_rgb_picture_is_one_region() -> None:
    picture = np.zeros((20, 30, 3), np.uint8)
    region = around(picture, BOX)
    assert region.corner.tolist() == [0, 0] and region.box is BOX and region.rgb is picture
    replaced: Any = replace(picture, region, picture + 1)
    assert replaced.min() == 1


@pytest.mark.parametrize(
    ("settings", "matrix"),
    [
        ({"colorspace": 1, "color_primaries": 1, "color_trc": 1}, 1),
        ({}, 6),
        ({"width": 1280}, 1),
        ({"colorspace": 5, "color_range": 1}, 5),
        ({"color_range": 2}, None),
        ({"colorspace": 9}, None),
        ({"colorspace": 6, "color_primaries": 1}, None),
        ({"color_trc": 16}, None),
        ({"format": "yuv444p"}, None),
        ({"format": "yuv420p10le"}, None),
        ({"format": "yuvj420p"}, None),
    ],
)
def test_matrix_says_whether_samples_can_stay(settings: dict[str, Any], matrix: int | None) -> None:
    frame = av.VideoFrame(settings.pop("width", 640), 360, settings.pop("format", "yuv420p"))
    for name in ("colorspace", "color_primaries", "color_trc"):
        setattr(frame, name, settings.get(name, 2))
    frame.color_range = settings.get("color_range", 0)
    assert matrix_of(frame) == matrix


@pytest.mark.parametrize("size", [(255, 192), (256, 191)])
def test_odd_sizes_and_pictures_are_rgb(size: tuple[int, int], tmp_path: Path) -> None:
    width, height = size
    path = tmp_path / "odd.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", 25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for packet in [*stream.encode(av.VideoFrame(width, height, "yuv420p")), *stream.encode(None)]:
            container.mux(packet)
    assert Video(path).matrix is None
    assert isinstance(next(Video(path).pictures([0])), np.ndarray)


def test_writer_tags_the_colours_of_the_source(video: Path, tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "out.mp4", 25, (256, 192), matrix=6) as writer:
        for picture in Video(video).pictures([0, 0, 1]):
            writer.write(picture)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 3
    assert {(f.colorspace, f.color_primaries, f.color_trc, f.color_range) for f in frames} == {(6, 6, 6, 1)}
