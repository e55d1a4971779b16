"""The tables' commands from videos and weights to files, with two synthetic clips and tiny untrained networks."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from evaluation.generate_videos import Job, Method, do_all, make_video, make_videos, recipe
from evaluation.paper_tables import (
    ORIGINAL,
    UNTOUCHED,
    Score,
    Table1,
    Table5,
    our_methods,
)
from evaluation.protocol import read_sound, videos_by_name
from evaluation.validation import Table3
from media.audio import FPS, SAMPLE_RATE
from media.video import Video, read_audio
from networks import DubConfig
from runtime.command_line import UserError

from ..datasets.made_up import write_clip
from .conftest import frame, read_table, reasons, write

CONFIG = replace(DubConfig.for_tables(), device="cpu")
NETWORKS = ("LPIPS vgg", "FID", "CSIM", "LSE-C")  # columns whose weight files are missing


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("checkpoints.registry.FOLDER", tmp_path)
    monkeypatch.delenv("IP_LAP_WEIGHTS", raising=False)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another method's videos: cropped to 256 x 256, one of them two frames short."""
    root = tmp_path_factory.mktemp("others")
    for place in ("reconstruction", "dubbing"):
        for name, count, brightness in (("ann/one", 8, 10), ("bob/two", 8, 30)):
            cut = [cv2.resize(frame(i + 2, brightness)[20:180, 20:180], (256, 256)) for i in range(count)]
            write(root / place / f"{name}.mp4", cut)
    return root


@pytest.mark.slow
def test_table1_of_both_protocols(
    videos: Path, tiny: Path, others: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Table1(
        videos, tmp_path / "out", weights=(f"Ours={tiny}",), methods=(f"Cut={others}",), num_references=(3,)
    )
    config.run()
    printed = capsys.readouterr()
    for column in NETWORKS:
        assert f"{column} left out" in printed.err
        assert f"{column} left out" in printed.out
    table = read_table(tmp_path / "out" / "table1_reconstruction.json")
    rows = {row.name: row for row in table.rows}
    assert list(rows)[:5] == [ORIGINAL, "Cut", "Ours", "nearest reference", "static lips"]
    best = rows[ORIGINAL].cells
    assert best["PSNR"][0] == pytest.approx(80)
    assert best["SSIM"][0] == pytest.approx(1)
    assert best["LipLMD"][0] == best["articulation"][0] - 1 == best["jitter"][0] - 1 == 0
    for name in ("Ours", "nearest reference", "static lips"):
        cells = rows[name].cells
        assert cells["produced"] == [1]
        assert 10 < cells["PSNR"][0] < 60, "the rest of the crop is unchanged"
    assert rows["nearest reference"].cells["PSNR"][0] > rows["Ours"].cells["PSNR"][0], "untrained networks are worse"
    assert rows["static lips"].cells["articulation"][0] < 0.9, (
        "less than the original, even drawn by an untrained network"
    )
    assert not reasons(rows["Cut"])
    assert "common part of 8 and 10 frames" in rows["Cut"].clips[1].notes
    assert rows["Cut"].cells["produced"] == [16 / 18]
    assert any("framed differently, 256 x 256" in note for note in rows["Cut"].clips[0].notes)
    assert rows["Cut"].clips[0].values["LipLMD"] < 0.02, "compared by face boxes, whatever the framing"
    assert rows["IP-LAP (paper)"].cells["PSNR"] == [32.91]
    dubbed = {row.name: row for row in read_table(tmp_path / "out" / "table1_dubbing.json").rows}
    assert UNTOUCHED in dubbed
    assert "PSNR" not in dubbed["Ours"].cells, "there is no ground truth"
    texts = {place: (tmp_path / "out" / f"table1_{place}.md").read_text() for place in ("reconstruction", "dubbing")}
    assert "LipLMD: mesh points, relative to its side" in texts["reconstruction"]
    assert "LipLMD" not in texts["dubbing"], "the variant of a column that is absent is not named"
    assert all("(paper): table1 LRS2 as printed" in text for text in texts.values())
    assert dubbed[UNTOUCHED].cells["articulation"][0] == pytest.approx(1)
    made = [len(list(Video(tmp_path / "out" / "dubbing" / "Ours" / f"{clip}.mp4"))) for clip in ("ann/one", "bob/two")]
    assert made == [10, 8], "as long as the sound of the other clip"
    assert (tmp_path / "out" / "dubbing_pairs.txt").read_text() == "ann/one bob/two\nbob/two ann/one\n"

    first, source = tmp_path / "out" / "reconstruction" / "Ours" / "ann" / "one.mp4", videos / "ann" / "one.mp4"
    before = first.stat().st_mtime_ns
    job = Job(
        Method("Ours", tiny, replace(DubConfig.for_tables(), device="cpu", num_references=3)),
        "ann/one",
        source,
        source,
        first,
    )
    assert list(do_all(make_video, [job], 1, "")) == [(job, "")]
    assert first.stat().st_mtime_ns == before, "an existing video is not made again"
    assert recipe(job) == first.with_suffix(".txt").read_text()
    other = replace(job, audio=videos / "bob" / "two.mp4")
    assert list(do_all(make_video, [other], 1, "")) == [(other, "")]
    assert first.stat().st_mtime_ns != before, "another sound makes another video"
    methods = (f"Cut={others / 'reconstruction'}",)
    unfinished = tmp_path / "other" / "reconstruction" / ".5f.part.mp4"  # of a killed run
    unfinished.parent.mkdir(parents=True)
    unfinished.touch()
    Score(videos, tmp_path / "other", weights=(), methods=methods).run()
    assert not unfinished.exists()
    cut = next(row for row in read_table(tmp_path / "other" / "score_reconstruction.json").rows if row.name == "Cut")
    assert not reasons(cut)
    assert "common part of 8 and 10 frames" in cut.clips[1].notes
    assert not any("paper" in row.name for row in read_table(tmp_path / "other" / "score_reconstruction.json").rows)


@pytest.mark.slow
def test_table5_with_two_workers_and_a_clip_without_a_face(videos: Path, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(videos, tmp_path / "videos")
    write(tmp_path / "videos" / "cat" / "three.mp4", [np.full((96, 96, 3), 90, np.uint8)] * 8)
    config = Table5(tmp_path / "videos", tmp_path / "out", weights=(f"x={tiny}",), num_references=(1, 2), workers=2)
    config.run()
    rows = {row.name: row for row in read_table(tmp_path / "out" / "table5_reconstruction.json").rows}
    assert list(rows)[:3] == [ORIGINAL, "x, N=1", "x, N=2"]
    assert rows["N=5 (paper)"].cells["PSNR"] == [32.96]
    assert "no face" in reasons(rows["x, N=1"])["cat/three"]
    assert rows["x, N=1"].cells["produced"] == [18 / 26]
    assert not list((tmp_path / "out").rglob("*.wav"))


@pytest.fixture
def cached(tmp_path: Path) -> Path:
    """A cache of two speakers, one of whom is absent in a frame, with a list of its clips."""
    for seed, (name, missing) in enumerate({"ann/one": (), "ann/two": (3,), "bob/one": ()}.items()):
        write_clip(tmp_path / "cache", name, 30, missing, seed=seed)
    (tmp_path / "list.txt").write_text("ann/one\nann/two\nbob/one\nnobody/here\n")
    return tmp_path


def test_table3_scores_a_cache(cached: Path, tiny: Path) -> None:
    weights = (f"w/ LSTM={tiny}", f"w/ Transformer={tiny}")
    Table3(cached / "cache", cached / "list.txt", weights, cached / "out").run()
    rows = {row.name: row for row in read_table(cached / "out" / "table3.json").rows}
    assert 0 < rows["w/ LSTM"].cells["Landmark Error"][0] < 128
    assert rows["w/ LSTM"].cells == rows["w/ Transformer"].cells
    assert rows["w/ Transformer (paper)"].cells["Landmark Error"] == [3.04]


def test_own_sound_is_cut_or_padded_to_the_video(videos: Path) -> None:
    path = videos / "ann" / "one.mp4"
    whole = read_audio(path)
    for frames in (5, 12):
        wav = read_sound(path, frames)
        assert len(wav) == frames * SAMPLE_RATE // FPS
        np.testing.assert_array_equal(wav[: len(whole)], whole[: len(wav)])
    assert not read_sound(path, 12)[len(whole) :].any()
    np.testing.assert_array_equal(read_sound(path, None), whole)


def test_rows_of_several_weights_and_numbers_have_distinct_names(tiny: Path) -> None:
    weights = (f"A={tiny}", f"B={tiny}")
    config = Table5(Path(), Path(), weights=weights, num_references=(1, 5))
    assert [m.name for m in our_methods(config)] == ["A, N=1", "A, N=5", "B, N=1", "B, N=5"]
    assert [m.name for m in our_methods(replace(config, num_references=(5,)))] == ["A", "B"]
    assert our_methods(replace(config, weights=(), baselines=True)) == []


def test_videos_are_made_method_by_method(
    tiny: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Table1(videos, tmp_path, weights=(f"Ours={tiny}",))
    made: list[str] = []
    monkeypatch.setattr("evaluation.generate_videos.make_video", lambda job: made.append(job.method.name))
    originals = {clip: (video, video) for clip, video in videos_by_name(videos).items()}
    make_videos(our_methods(config), originals, tmp_path, 1)
    assert made == ["Ours"] * 2 + ["nearest reference"] * 2 + ["static lips"] * 2


def test_any_error_costs_only_its_clip(tiny: Path, videos: Path, tmp_path: Path) -> None:
    source = videos / "ann" / "one.mp4"
    (tmp_path / "noise.mp4").write_bytes(b"no video")
    for video, audio, reason in (
        (tmp_path / "noise.mp4", source, "noise.mp4"),
        (source, tmp_path / "noise.mp4", "noise.mp4"),
        (tmp_path / "gone.mp4", source, "FileNotFoundError"),
    ):
        job = Job(Method("Ours", tiny, CONFIG), "x", video, audio, tmp_path / "out" / "x.mp4")
        assert reason in make_video(job)
        assert not list(tmp_path.glob("out/*"))


class Deadly(type(Path())):
    def stat(self, **_: bool) -> os.stat_result:
        os._exit(9)


@pytest.mark.slow
def test_a_dead_process_costs_only_its_video(tiny: Path, videos: Path, tmp_path: Path) -> None:
    source = videos / "ann" / "one.mp4"
    good = Job(
        Method("Ours", tiny, replace(CONFIG, num_references=1), "static lips"),
        "good",
        source,
        source,
        tmp_path / "good.mp4",
    )
    bad = replace(good, clip="bad", video=Deadly(source), output=tmp_path / "bad.mp4")
    reasons = {job.clip: why for job, why in do_all(make_video, [bad, good], 2, "")}
    assert reasons == {"good": "", "bad": "its process died, perhaps for lack of memory"}


def test_an_interrupted_video_is_made_again(
    tiny: Path, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new video may already have its name, beside the recipe of the old one."""

    class Interrupted:
        def dub(self, video: Path, audio: Path, output: Path) -> None:
            output.write_bytes(b"of another sound")
            raise KeyboardInterrupt

    source = videos / "ann" / "one.mp4"
    job = Job(Method("Ours", tiny, CONFIG), "x", source, source, tmp_path / "x.mp4")
    job.output.write_bytes(b"of its own sound")
    job.output.with_suffix(".txt").write_text(recipe(job))
    monkeypatch.setattr("evaluation.generate_videos._dubber", lambda _: Interrupted())
    with pytest.raises(KeyboardInterrupt):
        make_video(replace(job, audio=videos / "bob" / "two.mp4"))
    with pytest.raises(KeyboardInterrupt):
        make_video(job)


def test_mistakes_are_one_line_before_any_video_is_made(videos: Path, tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("eve/nine\n")
    write(tmp_path / "theirs" / "eve" / "nine.mp4", [frame(0)] * 2)
    shutil.copytree(videos / "ann", tmp_path / "one")
    for wrong, message in (
        ({"videos": tmp_path / "one", "protocol": "both"}, "needs at least two clips"),
        ({"clip_list": tmp_path / "list.txt"}, "no entry, such as eve/nine"),
        ({"methods": (f"A={tmp_path / 'theirs'}",)}, "no entry, such as ann/one"),
        ({"methods": (f"A={tmp_path / 'theirs'}",), "protocol": "both"}, "theirs/reconstruction"),
        ({"methods": ("A",)}, "NAME=FOLDER"),
        ({"weights": (f"Ours={tmp_path}",)}, "landmark_generator.safetensors"),
        ({"videos": tmp_path / "nothing"}, "not a folder"),
        ({"methods": (f"A={tmp_path}", f"A={videos}")}, "two are named A"),
        ({"methods": (f"Ours={videos}",)}, "two are named Ours"),
        ({"weights": (f"static lips={tiny}",)}, "two are named static lips"),
        ({"count": 0}, "count: at least 1 is needed, not 0"),
        ({"workers": 0}, "workers: at least 1 is needed, not 0"),
        ({"output": tmp_path / "list.txt"}, "--output"),
        ({"output": videos / "tables"}, "lies in --videos"),
        ({"num_references": (0,)}, "num_references: at least 1"),
    ):
        given: dict[str, Any] = {
            "videos": videos, "weights": (f"Ours={tiny}",), "protocol": "reconstruction", "output": tmp_path / "out",
        } | wrong  # fmt: skip
        with pytest.raises(UserError, match=message):
            Table1(**given).run()
    assert not list((tmp_path / "out").rglob("*.mp4")), "found before the first video is made"
