"""The page in a real browser: choose, click a face, dub, play; mistakes; several people at once."""

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from media.video import Video, read_audio
from networks import DubConfig
from runtime.command_line import UserError

ROOT = Path(__file__).resolve().parents[1]
MISSING = [name for name in ("gradio", "selenium") if importlib.util.find_spec(name) is None]
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
MISSING += [] if BROWSER and shutil.which("chromedriver") else ["Chromium and its driver"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed; see CONTRIBUTING.md"),
]
SECONDS = 0.6  # of speech
WAVE_FORM = "#sound .waveform-container, #sound audio, #sound [data-testid*=waveform]"
CHOSEN = "return document.querySelector('#number input:checked')?.value"
PATIENCE = 120  # seconds that a page may take


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a picture of one face, one of two faces, one of none, and some speech."""
    folder = tmp_path_factory.mktemp("material")
    with Image.open(ROOT / "assets" / "portrait.png") as portrait:
        face = portrait.convert("RGB").crop((90, 0, 350, 260))
    face.save(folder / "one face.png")
    both = Image.new("RGB", (2 * face.width, face.height))
    both.paste(face, (0, 0))
    both.paste(face.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (face.width, 0))
    both.save(folder / "two.png")
    Image.new("RGB", (200, 200), "grey").save(folder / "none.png")
    (folder / "broken.png").write_bytes(b"no picture")
    wav = read_audio(ROOT / "assets" / "speech.flac")
    wavfile.write(folder / "speech.wav", 16000, wav[: int(SECONDS * 16000)])
    wavfile.write(folder / "almost long.wav", 16000, wav[: int(4.9 * 16000)])
    wavfile.write(folder / "long.wav", 16000, wav[: int(5.1 * 16000)])
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Address of a running app that takes 5 seconds of sound and 2 MB, and the folder of its temporary files."""
    temporary = tmp_path_factory.mktemp("temporary")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "app.py", "--port", str(port), "--max-seconds", "5", "--max-megabytes", "2"]
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    log = temporary / "log"
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}/"
    try:
        wait_for(lambda: answers(address) or process.poll() is not None, 300)
        assert process.poll() is None, log.read_text()
        wait_for(lambda: f"The page is at {address}" in log.read_text())
        yield address, temporary
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
    assert list(temporary.glob("ip-lap-app-*")) == [], "temporary files stay behind"
    ours = re.findall(rf'File "{ROOT}/(?!\.venv/)[^"]*"', log.read_text())
    assert ours == [], "a traceback of ours"  # Gradio prints its own when it refuses a path


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as page:
            return page.status == 200
    except OSError:
        return False


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Polls until the condition is true, and returns what it gave."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.2)
    raise TimeoutError("the page did not come to that")


class Page:
    """A browser of its own, as of another person, with the app open."""

    def __init__(
        self, address: str, profile: Path, width: int = 1280, height: int = 1000, camera: Path | None = None
    ) -> None:
        from selenium import webdriver
        from selenium.webdriver.chrome.service import Service

        options = webdriver.ChromeOptions()
        options.binary_location = str(BROWSER)
        for argument in (
            "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--autoplay-policy=no-user-gesture-required", f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
        ):  # fmt: skip
            options.add_argument(argument)
        if camera is not None:
            for argument in ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"):
                options.add_argument(argument)
            options.add_argument(f"--use-file-for-fake-video-capture={camera}")
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options, Service(str(shutil.which("chromedriver"))))
        self.address = address
        self.driver.get(address)
        wait_for(lambda: self.find("#start"))

    def find(self, selector: str) -> Any:
        found = self.driver.find_elements("css selector", selector)
        return found[0] if found else None

    def text(self, selector: str) -> str:
        element = self.find(selector)
        return element.text if element else ""

    def upload(self, selector: str, path: Path) -> None:
        wait_for(lambda: self.find(f"{selector} input[type=file]")).send_keys(str(path))

    def click(self, selector: str) -> None:
        self.driver.execute_script("arguments[0].click()", wait_for(lambda: self.find(selector)))

    def choose(self, source: Path, sound: Path | None) -> None:
        self.upload("#source", source)
        wait_for(lambda: source.stem in self.text("#source") and self.find("#source .file-preview"))
        if sound is not None:
            self.upload("#sound", sound)
            wait_for(lambda: self.find(WAVE_FORM))

    def dub(self) -> None:
        self.click("#start")

    def wait_for_result(self) -> str:
        """The address of the finished video."""
        wait_for(lambda: "frames/s" in self.text("#status") or self.error())
        assert not self.error(), self.error()
        return str(wait_for(lambda: self.find("#result video")).get_attribute("src"))

    def error(self) -> str:
        return self.text(".toast-message-text")

    def fetch(self, address: str) -> int:
        """The status with which the server answers this browser."""
        script = (
            "const done = arguments[1]; fetch(arguments[0], {cache: 'no-store'}).then(answer => done(answer.status))"
        )
        return int(self.driver.execute_async_script(script, address))

    def requested(self) -> list[str]:
        """All addresses asked for so far."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]


@pytest.fixture
def open_page(server: tuple[str, Path], tmp_path: Path) -> Iterator[Callable[..., Page]]:
    pages: list[Page] = []

    def open_one(**options: Any) -> Page:
        pages.append(Page(server[0], tmp_path / f"profile{len(pages)}", **options))
        return pages[-1]

    yield open_one
    for page in pages:
        page.driver.quit()


def test_choose_dub_play_and_download(open_page: Callable[..., Page], material: Path, tmp_path: Path) -> None:
    page = open_page()
    page.choose(material / "one face.png", material / "speech.wav")
    page.dub()
    address = page.wait_for_result()
    length = wait_for(lambda: page.driver.execute_script("return document.querySelector('#result video').duration"))
    assert length == pytest.approx(SECONDS, abs=0.1)
    play = "const video = document.querySelector('#result video'); video.play(); return video.currentTime"
    assert wait_for(lambda: page.driver.execute_script(play) > 0.1)
    command = wait_for(lambda: page.text("#command"))
    assert "--video 'one face.png'" in command
    assert "--audio speech.wav" in command
    assert page.fetch(address) == 200
    result = Path(address.split("/file=")[1])
    shutil.copy(result, tmp_path / "talk.mp4")  # a video with the same face
    page.driver.refresh()
    wait_for(lambda: page.find("#start"))
    page.choose(tmp_path / "talk.mp4", material / "speech.wav")
    page.dub()
    page.wait_for_result()
    assert wait_for(lambda: page.find("#original video"))
    outside = [url for url in page.requested() if not url.startswith((page.address, "data:", "blob:", "chrome"))]
    assert outside == []
    refused = [entry["message"] for entry in page.driver.get_log("browser") if "Content Security" in entry["message"]]
    assert refused == []


def test_recording_of_the_camera_is_taken(open_page: Callable[..., Page], material: Path, tmp_path: Path) -> None:
    with Image.open(material / "one face.png") as face:
        luma, *chroma = face.convert("YCbCr").resize((320, 240)).split()
    planes = [luma.tobytes(), *(plane.resize((160, 120)).tobytes() for plane in chroma)]
    film = b"YUV4MPEG2 W320 H240 F25:1 Ip A1:1 C420mpeg2\n" + 25 * (b"FRAME\n" + b"".join(planes))
    (tmp_path / "camera.y4m").write_bytes(film)
    page = open_page(camera=tmp_path / "camera.y4m")
    page.driver.execute_script("[...document.querySelectorAll('button[role=tab]')].at(-1).click()")
    page.click("#camera button")  # asks for the camera
    wait_for(lambda: "Record" in page.text("#camera"))
    press = "[...document.querySelectorAll('#camera button')].find(x => x.innerText.includes(arguments[0])).click()"
    page.driver.execute_script(press, "Record")
    wait_for(lambda: "Stop" in page.text("#camera"))
    time.sleep(1.5)
    page.driver.execute_script(press, "Stop")
    wait_for(lambda: page.find("#faces img"))
    page.upload("#sound", material / "speech.wav")
    wait_for(lambda: page.find(WAVE_FORM))
    page.dub()
    page.wait_for_result()
    wait_for(lambda: ".webm" in page.text("#command"))


def test_clicked_face_is_the_one_that_is_dubbed(open_page: Callable[..., Page], material: Path) -> None:
    from selenium.webdriver import ActionChains

    page = open_page()
    page.choose(material / "two.png", material / "speech.wav")
    wait_for(lambda: "2 faces" in page.text("#hint"))
    picture = wait_for(lambda: page.find("#faces img"))
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", picture)
    time.sleep(1)
    for side, number in ((-1, "1"), (1, "2")):
        ActionChains(page.driver).move_to_element_with_offset(
            picture, side * picture.size["width"] // 4, 0
        ).click().perform()
        wait_for(lambda number=number: page.driver.execute_script(CHOSEN) == number, 20)
        time.sleep(1)
        picture = wait_for(lambda: page.find("#faces img"))
    page.dub()
    page.wait_for_result()
    command = wait_for(lambda: page.text("#command"))
    x = float(command.split("--face ")[1].split(",")[0])
    assert x > 260


@pytest.mark.parametrize(
    ("host", "port"), [("127.0.0.1", None), ("127.0.0.1", 70000), ("203.0.113.7", 0), ("no.invalid", 0)]
)
def test_an_address_that_cannot_be_used_is_one_line(host: str, port: int | None) -> None:
    from app import check_address

    check_address("127.0.0.1", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1] if port is None else port
        with pytest.raises(UserError, match=f"--port:? {number}") as error:
            check_address(host, number)
    assert "\n" not in str(error.value)


def test_a_running_job_keeps_its_files(tmp_path: Path) -> None:
    from app import COOKIE, Files, Report

    files = Files(tmp_path)
    request: Any = SimpleNamespace(cookies={COOKIE: "secret"}, session_hash="page")
    folder = files.make_folder(request)
    report = Report(Mock(), threading.Event(), lambda: files.use(folder, request))
    time.sleep(0.2)
    report("write", 1, 2)
    files.remove_unused(0.1)
    assert folder.exists()
    time.sleep(0.2)
    files.remove_unused(0.1)
    assert not folder.exists()


def test_the_command_names_weights_that_are_not_the_shipped_ones() -> None:
    from app import command_for

    command = command_for(Path("a.mp4"), Path("b.wav"), DubConfig(), Path("weights/released"))
    assert command.endswith(" --weights weights/released")


@pytest.mark.parametrize(
    ("source", "sound", "message"),
    [
        ("one face.png", None, "speech first"),
        ("none.png", "speech.wav", "no face was found"),
        ("one face.png", "long.wav", "longer than 5 s"),
        ("broken.png", "speech.wav", "broken.png"),
    ],
)
def test_mistakes_are_one_line(
    open_page: Callable[..., Page], material: Path, source: str, sound: str | None, message: str
) -> None:
    page = open_page()
    page.choose(material / source, None if sound is None else material / sound)
    page.dub()
    error = wait_for(page.error)
    assert message in error
    assert str(ROOT) not in error
    assert "/tmp" not in error
    assert "\n" not in error.strip()


def test_two_people_at_once_never_see_each_others_files(
    open_page: Callable[..., Page], material: Path, server: tuple[str, Path]
) -> None:
    first = open_page()
    second = open_page()
    first.choose(material / "one face.png", material / "speech.wav")
    second.choose(material / "two.png", material / "speech.wav")
    first.dub()
    second.dub()
    addresses = [page.wait_for_result() for page in (first, second)]
    assert addresses[0] != addresses[1]
    assert [first.fetch(address) for address in addresses] == [200, 403]
    assert [second.fetch(address) for address in addresses] == [403, 200]
    for address in addresses:
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(address)
    files = Path(addresses[0].split("/file=")[1])
    assert files.is_relative_to(server[1])
    assert Video(files).width == 260
    first.driver.get("about:blank")  # its page is closed
    wait_for(lambda: not files.exists(), 60)
    assert second.fetch(addresses[1]) == 200


def test_made_up_path_is_refused(open_page: Callable[..., Page], material: Path, server: tuple[str, Path]) -> None:
    page = open_page()
    page.choose(material / "one face.png", None)
    picture = wait_for(lambda: page.find("#faces img")).get_attribute("src")
    theirs = picture.split("/file=")[1]
    with urllib.request.urlopen(f"{server[0]}config") as answer:
        config = json.load(answer)
    source = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "source")
    look = next(event["id"] for event in config["dependencies"] if [source, "change"] in event["targets"])
    for path in (theirs, str(ROOT / "README.md"), "/etc/hosts", f"{theirs}/../../../../../etc/hosts"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{server[0]}gradio_api/file={path}")
        file = {"path": path, "meta": {"_type": "gradio.FileData"}}
        body = json.dumps({"data": [file], "fn_index": look, "session_hash": "stranger"}).encode()
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{server[0]}gradio_api/queue/join", body, headers)).read()
        with urllib.request.urlopen(f"{server[0]}gradio_api/queue/data?session_hash=stranger", timeout=60) as events:
            ended = next(line for line in events if b"process_completed" in line)
        assert json.loads(ended.removeprefix(b"data: "))["success"] is False


def test_stopped_job_ends_and_the_next_one_runs(open_page: Callable[..., Page], material: Path) -> None:
    page = open_page()
    page.choose(material / "one face.png", material / "almost long.wav")
    page.dub()
    shown = wait_for(lambda: "s left" in page.text("#result") and page.text("#result"))
    assert "frames/s" in shown
    page.click("#stop")
    assert "stopped" in wait_for(page.error)
    page.driver.refresh()
    wait_for(lambda: page.find("#start"))
    page.choose(material / "one face.png", material / "speech.wav")
    page.dub()
    page.wait_for_result()


def test_stop_ends_a_job_that_waits(open_page: Callable[..., Page], material: Path) -> None:
    first = open_page()
    second = open_page()
    first.choose(material / "one face.png", material / "almost long.wav")
    second.choose(material / "one face.png", material / "almost long.wav")
    first.dub()
    wait_for(lambda: "s left" in first.text("#result"))
    second.dub()
    wait_for(lambda: "queue" in second.text("#result"))
    second.click("#stop")
    time.sleep(1)
    first.click("#stop")
    assert "stopped" in wait_for(second.error, 20)
    assert not second.find("#result video")


def test_too_large_a_file_is_refused(open_page: Callable[..., Page], tmp_path: Path) -> None:
    page = open_page()
    noise = np.random.default_rng(0).integers(0, 255, (1000, 1000, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    page.upload("#source", tmp_path / "large.png")
    assert "maximum" in wait_for(page.error)


def test_page_fits_a_phone(open_page: Callable[..., Page], material: Path) -> None:
    page = open_page(width=500, height=900)
    page.driver.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    )
    page.choose(material / "two.png", material / "speech.wav")
    wait_for(lambda: page.find("#faces img"))
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= 390
