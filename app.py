"""Dubbing in a browser: make app, or python app.py with the dependency group "app" installed.

By default it serves only this machine, and it loads nothing from the network. Every browser gets a secret cookie. A
file is served only to the browser that uploaded or made it. Files are removed when their page is closed, when they have
not been used for some time, and when the server stops.
"""

import runtime.threads  # isort: skip  # noqa: F401 (before PyTorch)

import html
import json
import os
import secrets
import shlex
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookies import SimpleCookie
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from face.detector import FaceDetector, extent
from inference import Dubber
from media import ffmpeg
from media.audio import FPS, SAMPLE_RATE
from media.video import Video
from networks import SHIPPED_WEIGHTS, DubConfig, Networks
from runtime import command_line
from runtime.command_line import UserError
from runtime.device import out_of_memory

# Read when Gradio is imported: no request leaves this machine.
os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
try:
    import gradio as gr
    from gradio.themes import Base
except ImportError:
    command_line.fail('the app needs Gradio: make app, or install "gradio>=6.31,<7" into this environment')

COOKIE = "ip_lap_browser"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_PORT = 65535
MAX_SEARCHED = 250  # frames that are searched for faces to choose from
SEARCH_STEP = 10  # frames from one search to the next
MAX_SHOWN = 1280  # pixels of the longer side of the frame to choose from
PLAYABLE = (".mp4", ".m4v", ".mov", ".webm")  # that browsers play, with one of these codecs:
PLAYABLE_CODECS = ("h264", "vp8", "vp9", "libvpx", "av1", "libdav1d")
# The browser refuses anything that a component might request from elsewhere.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; "
    "connect-src 'self' blob: data:"
)
PROGRESS = gr.Progress()  # Gradio replaces it with that of the request
CSS = "footer {display: none !important} .faces img {cursor: pointer}"
INTRODUCTION = """# IP-LAP
Add a face and some speech, and the mouth will follow the speech. **Dub only people who have agreed to it, and say that
the video is synthetic.**"""


@dataclass(frozen=True, kw_only=True)
class AppConfig:
    """Serves a page that dubs videos."""

    host: str = "127.0.0.1"
    """Address to listen on. Any other address lets everyone who can reach it use the page."""
    port: int = 7860
    """Port to listen on; 0: any free port."""
    weights: Path = SHIPPED_WEIGHTS
    """Folder with landmark_generator.safetensors and renderer.safetensors."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto for the fastest available."""
    max_seconds: float = 120.0
    """Longest sound that is accepted, in seconds."""
    max_megabytes: int = 500
    """Largest file that is accepted, in megabytes."""
    max_waiting: int = 8
    """Jobs that may wait; more are refused. One runs at a time."""
    keep_minutes: float = 60.0
    """Minutes after which unused files are removed even if their page is still open."""


class Stopped(Exception):
    """The user stopped the job, or closed its page."""


class Files:
    """The folders below `root`, one for each upload or result, and the browsers and pages that use them."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.owners: dict[str, set[str]] = defaultdict(set)  # folder -> browsers
        self.pages: dict[str, set[str]] = defaultdict(set)  # page -> folders
        self.used: dict[str, float] = {}  # folder -> time of its last use
        self.lock = threading.Lock()

    def folder_of(self, path: str | Path) -> str | None:
        """Returns the name of the folder that contains a file, or None if it is not one of these folders."""
        resolved = Path(path).resolve()
        if not resolved.is_relative_to(self.root) or resolved == self.root:
            return None
        return resolved.relative_to(self.root).parts[0]

    def give(self, path: str | Path, browser: str) -> None:
        """Allows a browser to see a file."""
        folder = self.folder_of(path)
        if folder is not None and browser:
            with self.lock:
                self.owners[folder].add(browser)
                self.used[folder] = time.monotonic()

    def may_see(self, path: str | Path, browser: str) -> bool:
        folder = self.folder_of(path)
        return folder is not None and browser in self.owners.get(folder, ())

    def use(self, path: str | Path, request: gr.Request) -> Path:
        """Records that a page uses a file. Raises a UserError if its browser may not see the file."""
        if not self.may_see(path, browser_of(request)):
            raise UserError("this file has been removed; choose it again")
        folder = self.folder_of(path)
        assert folder is not None
        with self.lock:
            self.pages[str(request.session_hash)].add(folder)
            self.used[folder] = time.monotonic()
        return Path(path)

    def make_folder(self, request: gr.Request) -> Path:
        """Makes a new folder for a page's result."""
        folder = self.root / secrets.token_hex(16)
        folder.mkdir()
        self.give(folder, browser_of(request))
        self.use(folder, request)
        return folder

    def close_page(self, page: str) -> None:
        """Removes the folders of a page that no other page uses."""
        with self.lock:
            folders = self.pages.pop(page, set())
            self._remove(folders.difference(*self.pages.values()))

    def remove_unused(self, seconds: float) -> None:
        """Removes the folders that have not been used for this many seconds."""
        limit = time.monotonic() - seconds
        with self.lock:
            self._remove({folder for folder, last in self.used.items() if last < limit})

    def _remove(self, folders: set[str]) -> None:
        for folder in folders:
            shutil.rmtree(self.root / folder, ignore_errors=True)
            self.owners.pop(folder, None)
            self.used.pop(folder, None)
            for used in self.pages.values():
                used.discard(folder)


def browser_of(request: gr.Request) -> str:
    """Returns the secret of the browser that sent the request."""
    return str(request.cookies.get(COOKIE, ""))


class Guard:
    """ASGI middleware: gives each browser a cookie, records its uploads, and serves files only to their owners."""

    def __init__(self, app: Any, files: Files) -> None:
        self.app = app
        self.files = files

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        browser = cookie_in(scope)
        path = scope["path"]
        wanted = path.partition("/file=")[2]
        if "/proxy=" in path or (wanted and not self.files.may_see(wanted, browser)):
            await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"This file belongs to someone else or was removed."})
            return
        new_browser = "" if browser else secrets.token_urlsafe(32)
        is_upload = path.endswith("/upload") and scope["method"] == "POST"
        body = bytearray()

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], (b"content-security-policy", POLICY.encode())]
                headers.append((b"referrer-policy", b"no-referrer"))
                if new_browser:
                    cookie = f"{COOKIE}={new_browser}; Path=/; HttpOnly; SameSite=Strict"
                    headers.append((b"set-cookie", cookie.encode()))
                message = message | {"headers": headers}
            elif is_upload:
                body.extend(message.get("body", b""))
                if not message.get("more_body"):
                    self._note_upload(bytes(body), browser or new_browser)
            await send(message)

        await self.app(scope, receive, answer)

    def _note_upload(self, body: bytes, browser: str) -> None:
        """Records an upload from its response, the list of the paths that it was written to."""
        try:
            paths = json.loads(body)
        except ValueError:  # the upload was refused
            return
        for path in paths if isinstance(paths, list) else []:
            self.files.give(path, browser)


def cookie_in(scope: Any) -> str:
    """Returns the secret in the cookie of a request, or an empty string."""
    for name, value in scope["headers"]:
        if name == b"cookie":
            morsel = SimpleCookie(value.decode("latin-1")).get(COOKIE)
            return morsel.value if morsel else ""
    return ""


@dataclass(frozen=True)
class Faces:
    """The first frame that shows faces, and the faces to choose from."""

    frame: np.ndarray  # (H, W, 3) uint8 RGB, upright
    boxes: np.ndarray  # (N, 4) x0, y0, x1, y1 in pixels, sorted from the left


class FaceFinder:
    """Finds the faces to choose from, for one request at a time."""

    def __init__(self) -> None:
        self.detector = FaceDetector()
        self.lock = threading.Lock()

    def find(self, path: Path) -> Faces:
        """Finds the faces of a video or picture. Raises a UserError if the file is neither."""
        first = None
        for frame in islice(Video(path), 0, MAX_SEARCHED, SEARCH_STEP):
            first = frame if first is None else first
            with self.lock:
                meshes = self.detector.detect(frame)
            if meshes:
                boxes = np.array(sorted(extent(mesh).tolist() for mesh in meshes))
                return Faces(frame, boxes)
        if first is None:
            raise UserError(f"{path} has no frames; choose another video")
        return Faces(first, np.zeros((0, 4)))


def show_faces(faces: Faces, chosen: int) -> np.ndarray:
    """Draws a numbered box around each face of the frame, in green for the chosen one."""
    shown = faces.frame.copy()
    unit = max(1, round(max(shown.shape[:2]) / 400))
    for number, box in enumerate(faces.boxes):
        colour = (40, 220, 90) if number == chosen else (255, 255, 255)
        x0, y0, x1, y1 = (int(side) for side in box)
        cv2.rectangle(shown, (x0, y0), (x1, y1), (0, 0, 0), 3 * unit)
        cv2.rectangle(shown, (x0, y0), (x1, y1), colour, 2 * unit)
        if len(faces.boxes) > 1:
            place = (x0, max(y0 - 4 * unit, 16 * unit))
            for shade, thickness in (((0, 0, 0), 4 * unit), (colour, 2 * unit)):
                cv2.putText(shown, str(number + 1), place, cv2.FONT_HERSHEY_SIMPLEX, 0.6 * unit, shade, thickness)
    scale = MAX_SHOWN / max(shown.shape[:2])
    return cv2.resize(shown, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else shown


def face_at(faces: Faces, x: float, y: float, shown_width: float) -> int:
    """Returns the number of the face nearest to a point of the picture from `show_faces`."""
    scale = faces.frame.shape[1] / shown_width
    centres = faces.boxes.reshape(-1, 2, 2).mean(axis=1)
    return int(np.linalg.norm(centres - (x * scale, y * scale), axis=1).argmin())


def pick_of(faces: Faces | None, chosen: int) -> str:
    """Returns the value of --face for the chosen face."""
    if faces is None or len(faces.boxes) < 2:
        return "largest"
    x, y = faces.boxes.reshape(-1, 2, 2).mean(axis=1)[chosen]
    return f"{x:.0f},{y:.0f}"


def check_length(path: Path, max_seconds: float) -> None:
    """Raises a UserError if a sound is longer than `max_seconds`; decodes no more than that."""
    samples = 0
    with ffmpeg.open_input(path) as source:
        if source.sound is None:
            raise UserError(f"{path} has no sound; give a sound file, or a video with sound")
        for piece in source.sound_pieces(SAMPLE_RATE, "mono"):
            samples += piece.shape[-1]
            if samples > max_seconds * SAMPLE_RATE:
                raise UserError(f"{path} is longer than {max_seconds:.0f} s, the limit of this page; cut it")


def is_playable(path: Path) -> bool:
    """Whether browsers can play this video."""
    with ffmpeg.open_input(path) as source:
        codec = "" if source.picture is None else source.picture.codec_context.name
    return path.suffix.lower() in PLAYABLE and codec.startswith(PLAYABLE_CODECS)


def command_for(source: Path, sound: Path, config: DubConfig, weights: Path) -> str:
    """Returns the command line that makes the same video."""
    words = ["python", "inference.py", "--video", source.name, "--audio", sound.name, "--output", "dubbed.mp4"]
    if weights != SHIPPED_WEIGHTS:
        words += ["--weights", str(weights)]
    for name, value in vars(config).items():
        if value == getattr(DubConfig(), name):
            continue
        flag = "--" + name.replace("_", "-")
        words += [flag] if value is True else [flag, str(value)]
    return shlex.join(words)


class Report:
    """Shows progress on the page, with frames per second and the time left.

    Args:
        progress: shows a share and a description.
        stopped: is set when the user stops the job.
        keep: called now and then, to keep the files of a long job from being removed as unused.
    """

    def __init__(self, progress: gr.Progress, stopped: threading.Event, keep: Callable[[], object]) -> None:
        self.progress = progress
        self.stopped = stopped
        self.keep = keep
        self.stage = ""
        self.began = 0.0
        self.said = 0.0

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Raises Stopped once the user has stopped the job."""
        if self.stopped.is_set():
            raise Stopped
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.began, self.said = stage, now, 0.0
        if now - self.said < 0.3 and done < total:
            return
        self.said = now
        self.keep()
        what = "detecting the face" if stage == "track" else "drawing"
        rate = done / max(now - self.began, 1e-3)
        left = max(total - done, 0) / rate
        share = min(done / max(total, 1), 1.0)
        share = 0.25 * share if stage == "track" else 0.25 + 0.75 * share
        self.progress(share, desc=f"{what}: {done} of {total} frames, {rate:.1f} frames/s, {left:.0f} s left")


@contextmanager
def one_line(*paths: Path | None) -> Iterator[None]:
    """Shows a UserError as one line on the page, with the file names that the user knows."""
    try:
        yield
    except UserError as error:
        message = str(error)
        for path in paths:
            if path is not None:
                message = message.replace(str(path), path.name)
        raise gr.Error(html.escape(message), duration=None, print_exception=False) from None


class App:
    """The page and what its buttons do."""

    def __init__(self, config: AppConfig, root: Path) -> None:
        self.config = config
        self.files = Files(root)
        self.finder = FaceFinder()
        self.networks = Networks.from_weights(config.weights, DubConfig(device=config.device))
        self.running: dict[str, threading.Event] = defaultdict(threading.Event)  # page -> whether its job should stop

    def look(self, uploaded: str | None, request: gr.Request) -> tuple[Any, ...]:
        """Shows the faces of the source that was chosen."""
        nothing = (None, 0, gr.Image(value=None, visible=False), gr.Radio(choices=[], visible=False), "")
        if not uploaded:
            return nothing
        path = Path(uploaded)
        with one_line(path):
            self.files.use(path, request)
            faces = self.finder.find(path)
        sizes = faces.boxes[:, 3] - faces.boxes[:, 1]
        chosen = int(sizes.argmax()) if len(sizes) else 0
        choices = [str(number + 1) for number in range(len(sizes))]
        several = len(sizes) > 1
        hint = "No face was found at the beginning; one may appear later." if not len(sizes) else ""
        if several:
            hint = f"{len(sizes)} faces: click the one to dub."
        radio = gr.Radio(choices=choices, value=str(chosen + 1) if several else None, visible=several)
        return faces, chosen, self.picture(faces, chosen, request), radio, hint

    def take_recording(self, recorded: str | None) -> Any:
        """Makes a camera recording the source."""
        return recorded or gr.skip()

    def picture(self, faces: Faces, chosen: int, request: gr.Request) -> Any:
        path = self.files.make_folder(request) / "faces.jpg"
        cv2.imwrite(str(path), cv2.cvtColor(show_faces(faces, chosen), cv2.COLOR_RGB2BGR))
        return gr.Image(value=str(path), visible=True)

    def click(self, faces: Faces | None, event: gr.SelectData, request: gr.Request) -> tuple[Any, ...]:
        """Chooses the face that the user clicked in the picture."""
        if faces is None or len(faces.boxes) < 2:
            return gr.skip(), gr.skip(), gr.skip()
        shown_width = show_faces(faces, 0).shape[1]
        chosen = face_at(faces, event.index[0], event.index[1], shown_width)
        return chosen, self.picture(faces, chosen, request), gr.Radio(value=str(chosen + 1))

    def choose(self, faces: Faces | None, number: str | None, request: gr.Request) -> tuple[Any, ...]:
        """Chooses a face by its number."""
        if faces is None or not number:
            return gr.skip(), gr.skip()
        chosen = int(number) - 1
        return chosen, self.picture(faces, chosen, request)

    def dub(
        self,
        source: str | None,
        sound: str | None,
        faces: Faces | None,
        chosen: int,
        panel: bool,
        keep_fps: bool,
        keep_length: bool,
        num_references: int,
        request: gr.Request,
        progress: gr.Progress = PROGRESS,
    ) -> tuple[Any, ...]:
        """Dubs the source and fills the right side of the page."""
        stopped = self.running[str(request.session_hash)]
        source_path = Path(source) if source else None
        sound_path = Path(sound) if sound else None
        with one_line(source_path, sound_path):
            if source_path is None:
                raise UserError("choose a video or a picture first")
            if sound_path is None:
                raise UserError("choose or record some speech first")
            self.files.use(source_path, request)
            self.files.use(sound_path, request)
            check_length(sound_path, self.config.max_seconds)
            if keep_length and Video(source_path).num_frames > FPS * self.config.max_seconds:
                raise UserError(f"{source_path} is longer than {self.config.max_seconds:.0f} s; cut it to that length")
            config = DubConfig(
                device=self.config.device,
                face=pick_of(faces, chosen),
                panel=panel,
                keep_fps=keep_fps,
                keep_length=keep_length,
                num_references=int(num_references),
            )
            networks = Networks(self.networks.landmark_generator, self.networks.renderer, config)
            output = self.files.make_folder(request) / "dubbed.mp4"
            paths = (source_path, sound_path, output)
            report = Report(progress, stopped, lambda: [self.files.use(path, request) for path in paths])
            try:
                summary = Dubber(networks).dub(source_path, sound_path, output, report)
            except Stopped:
                raise UserError("stopped") from None
            except (MemoryError, RuntimeError) as error:
                if not out_of_memory(error):
                    raise
                raise UserError("too little memory for this video; choose a smaller one") from error
        lines = [
            f"{summary.frames} frames in {summary.seconds:.1f} s: {summary.frames / summary.seconds:.1f} frames/s. "
            f"{summary.frames_without_face} were left unchanged: they show no face or a hand in front of the mouth."
        ]
        remarks = [remark.replace(str(source_path), source_path.name) for remark in summary.remarks]
        remarks = [remark.replace(str(sound_path), sound_path.name) for remark in remarks]
        lines += [html.escape(remark) for remark in remarks]
        playable = is_playable(source_path)
        return (
            gr.Video(value=str(source_path) if playable else None, visible=playable),
            gr.Video(value=str(output), visible=True),
            gr.DownloadButton(value=str(output), visible=True),
            gr.Code(value=command_for(source_path, sound_path, config, self.config.weights), visible=True),
            "\n\n".join(lines),
        )

    def start(self, request: gr.Request) -> None:
        """Forgets an earlier `stop`, so that the page's next job runs. A later one ends it, even while it waits."""
        self.running[str(request.session_hash)].clear()

    def stop(self, request: gr.Request) -> None:
        self.running[str(request.session_hash)].set()

    def close_page(self, request: gr.Request) -> None:
        self.stop(request)
        self.files.close_page(str(request.session_hash))
        self.running.pop(str(request.session_hash), None)

    def page(self) -> gr.Blocks:
        with gr.Blocks(title="IP-LAP", analytics_enabled=False) as page:
            faces = gr.State(None)
            chosen = gr.State(0)
            gr.Markdown(INTRODUCTION)
            with gr.Row():
                with gr.Column(min_width=320):
                    with gr.Tabs():
                        with gr.Tab("File"):
                            source = gr.File(
                                label=f"Video or picture of a face, up to {self.config.max_megabytes} MB",
                                file_types=["video", "image", ".mkv"],
                                height=140,
                                elem_id="source",
                            )
                        with gr.Tab("Camera"):
                            camera = gr.Video(
                                label="Camera",
                                sources=["webcam"],
                                webcam_options=gr.WebcamOptions(mirror=False),
                                include_audio=True,  # without it Gradio calls the ffmpeg program
                                buttons=[],
                                elem_id="camera",
                            )
                    hint = gr.Markdown(elem_id="hint")
                    picture = gr.Image(
                        label="Faces",
                        visible=False,
                        interactive=False,
                        type="filepath",
                        buttons=[],
                        height=320,
                        elem_classes="faces",
                        elem_id="faces",
                    )
                    number = gr.Radio(label="Face to dub", choices=[], visible=False, elem_id="number")
                    sound = gr.Audio(
                        label=f"Speech, up to {self.config.max_seconds:.0f} s",
                        sources=["upload", "microphone"],
                        type="filepath",
                        buttons=["download"],
                        elem_id="sound",
                    )
                    with gr.Accordion("Options", open=False):
                        panel = gr.Checkbox(label="Panel: show landmarks, sketch, reference and drawn face beside it")
                        keep_fps = gr.Checkbox(label="Keep the video's own frame rate (default: 25 frames per second)")
                        keep_length = gr.Checkbox(label="Continue to the end of a video that is longer than the sound")
                        num_references = gr.Slider(
                            1, 25, value=DubConfig.num_references, step=1, label="Reference images for each frame"
                        )
                    with gr.Row():
                        start = gr.Button("Dub", variant="primary", elem_id="start")
                        stop = gr.Button("Stop", elem_id="stop")
                with gr.Column(min_width=320):
                    with gr.Row():
                        original = gr.Video(
                            label="Original",
                            interactive=False,
                            visible=False,
                            buttons=[],
                            min_width=240,
                            elem_id="original",
                        )
                        result = gr.Video(
                            label="Result", interactive=False, buttons=[], min_width=240, elem_id="result"
                        )
                    status = gr.Markdown(elem_id="status")
                    download = gr.DownloadButton("Download", visible=False, elem_id="download")
                    command = gr.Code(
                        label="The same on the command line",
                        language="shell",
                        wrap_lines=True,
                        max_lines=8,
                        interactive=False,
                        visible=False,
                        elem_id="command",
                    )
            outputs = [faces, chosen, picture, number, hint]
            camera.change(self.take_recording, camera, source, api_visibility="private")
            source.change(self.look, source, outputs, api_visibility="private", concurrency_limit=2)
            picture.select(self.click, faces, [chosen, picture, number], api_visibility="private")
            number.input(self.choose, [faces, number], [chosen, picture], api_visibility="private")
            start.click(self.start, api_visibility="private", queue=False).then(
                self.dub,
                [source, sound, faces, chosen, panel, keep_fps, keep_length, num_references],
                [original, result, download, command, status],
                api_visibility="private",
                concurrency_limit=1,
                show_progress_on=[result],
            )
            stop.click(self.stop, api_visibility="private", queue=False)
            page.unload(self.close_page)
        return page.queue(max_size=self.config.max_waiting)


def serve(config: AppConfig, root: Path) -> None:
    """Serves the page until interrupted."""
    app = App(config, root)

    def tidy() -> None:
        while True:
            time.sleep(60)
            app.files.remove_unused(60 * config.keep_minutes)

    threading.Thread(target=tidy, daemon=True).start()
    if config.host not in LOOPBACK:
        print(f"Everyone who can reach {config.host} can use this page.", file=sys.stderr)
    theme = Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    page = app.page()
    _, address, _ = page.launch(
        prevent_thread_lock=True,
        quiet=True,
        server_name=config.host,
        server_port=config.port or None,
        max_file_size=f"{config.max_megabytes}mb",
        app_kwargs={"middleware": [guard(app.files)]},
        theme=theme,
        css=CSS,
        footer_links=[],
        run_history=False,
        share=False,
        ssr_mode=False,
        enable_monitoring=False,
        mcp_server=False,
        inbrowser=False,
        show_error=False,
    )
    print(f"The page is at {address} (Ctrl-C stops it)", flush=True)
    page.block_thread()


def check_address(host: str, port: int) -> None:
    """Raises a UserError unless this machine can listen on the address; Gradio would wait or end in a traceback."""
    if not 0 <= port <= MAX_PORT:
        raise UserError(f"--port: {port} is not between 0 and {MAX_PORT}")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address, family=family).close()
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--host {host} --port {port}: cannot listen there ({reason}); choose others") from error


def guard(files: Files) -> Any:
    from starlette.middleware import Middleware

    return Middleware(Guard, files=files)


def main(config: AppConfig) -> None:
    check_address(config.host, config.port)
    with tempfile.TemporaryDirectory(prefix="ip-lap-app-") as root:
        os.environ["GRADIO_TEMP_DIR"] = root
        serve(config, Path(root))


if __name__ == "__main__":
    command_line.run(main, AppConfig)
