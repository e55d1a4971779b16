"""Lists of jobs: how a CSV file is read, and that one failure does not stop the others."""

from pathlib import Path

import pytest

from jobs import Job, Speaker, read_jobs, run_jobs
from runtime.command_line import UserError


def write(folder: Path, text: str) -> Path:
    path = folder / "jobs.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_rows_become_jobs(tmp_path: Path) -> None:
    path = write(tmp_path, 'output,video,audio,face\none.mp4,"a, b.mp4",speech.wav,left\n/two.mp4,c.mp4,d.wav,\n')
    first, second = read_jobs(path)
    assert first == Job(tmp_path / "a, b.mp4", tmp_path / "one.mp4", [Speaker(tmp_path / "speech.wav", "left")])
    assert second == Job(tmp_path / "c.mp4", Path("/two.mp4"), [Speaker(tmp_path / "d.wav")])


def test_rows_with_the_same_output_are_speakers_of_one_video(tmp_path: Path) -> None:
    path = write(tmp_path, "video,audio,output,face,start\nv.mp4,a.wav,o.mp4,left,\nv.mp4,b.wav,o.mp4,right,4.2\n")
    (job,) = read_jobs(path)
    assert job.speakers == [Speaker(tmp_path / "a.wav", "left"), Speaker(tmp_path / "b.wav", "right", 4.2)]


def test_a_spreadsheets_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path) -> None:
    path = tmp_path / "jobs.csv"
    path.write_bytes(b"\xef\xbb\xbfvideo,audio,output\r\nv.mp4,a.wav,o.mp4\r\n")
    assert len(read_jobs(path)) == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "its first line must be video,audio,output,face,start, not ''"),
        ("video,audio,output\n", "lists no jobs"),
        ("video,audio,output,mouth\nv,a,o,m\n", "its first line must be .*, not 'video,audio,output,mouth'"),
        ("video,audio,output\nv,,o\n", "line 2: no audio"),
        ("video,audio,output\nv,a\n", "line 2: no output"),
        ("video,audio,output\nv,a,o,left\n", "line 2: more values than columns"),
        ("video,audio,output,start\nv,a,o,soon\n", "line 2: start soon is not a number"),
        ("video,audio,output,start\nv,a,o,-1\n", "line 2: start -1 is not a number"),
        ("video,audio,output\nv,a,o\nw,a,o\n", "line 3: .*another name"),
        ("video,audio,output\nv,a,o\nv,b,o\n", "line 3: .*same output, face and start"),
    ],
)
def test_a_wrong_list_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem) as error:
        read_jobs(write(tmp_path, text))
    assert "jobs.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_or_binary_list_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_jobs(tmp_path / "none.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        read_jobs(tmp_path / "binary.csv")


def test_jobs_go_on_after_an_error_and_what_is_there_is_not_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("done", "broken", "last")
    jobs = [Job(tmp_path / "v.mp4", tmp_path / f"{name}.mp4", [Speaker(tmp_path / "a.wav")]) for name in names]
    jobs[0].output.touch()
    dubbed: list[str] = []

    def dub(job: Job) -> str:
        dubbed.append(job.output.stem)
        if job.output.stem == "broken":
            raise UserError("no face\nwas found")
        return f"{job.output}: 10 frames"

    assert run_jobs(jobs, dub) == 1
    assert dubbed == ["broken", "last"]
    printed = capsys.readouterr()
    assert "[1/3]" in printed.out and "exists already" in printed.out and "[3/3]" in printed.out
    assert printed.err == f"[2/3] {jobs[1].output}: error: no face was found\n"
