"""Dubs a video, or brings a picture to life: python inference.py --video V --audio A --output O.mp4

Paper section 3.4. The video is read twice, so that memory does not grow with its length: once to find the face in every
frame, once to draw it. In between, stage 1 turns the sound into lips and jaws for all frames.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from tqdm import tqdm

import command_line
from command_line import UserError
from datasets import settings
from datasets.windows import ping_pong, window_frames
from face.compositing import add_panel, paste_face
from face.crop import box_around, crop_face, smooth_boxes, to_crop, to_frame
from face.landmarks import EDGES, JAW_SLICE, LIP_SLICE, POSE_SLICE
from face.references import lip_openness, nearest_references, spread_over_openness
from face.sketch import draw_sketch
from face.tracking import FaceTrack, Tracker, fill_gaps
from media import audio as sound
from media.picture import Picture, is_picture
from media.video import WRITTEN, Video, VideoWriter, read_audio
from models import load
from models.landmark_generator import LandmarkGenerator
from models.renderer import ReferenceFeatures, Renderer
from training.device import computes_in_bf16, keep_memory, out_of_memory, pick_device

NUM_LANDMARK_REFERENCES = 15  # N_l of the paper
SHORTEST_SOUND = 0.2  # seconds: one mel window
TOLD = 5  # changes of the shot
MOST_DETAIL = 4  # times the network's size, up to which references are kept for their detail
STAGES: tuple[str, ...] = ("listen", "track", "landmarks", "references", "draw")  # of a dub, timed
WEIGHT_FILES = ("landmark_generator.safetensors", "renderer.safetensors")
SHIPPED_WEIGHTS = Path(__file__).parent / "checkpoints" / "lite"


@dataclass(frozen=True)
class Config:
    """Redraws the lower half of a face so that the mouth follows new speech."""

    video: Path
    """A video, or a picture (png, jpg, ...), with a face in it."""
    audio: Path
    """The new speech: any sound file, or a video whose sound is taken. The result is as long as this."""
    output: Path
    """The file to write (.mp4)."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto: the fastest there is."""
    num_references: int = 5
    """Reference images that the renderer looks at for a frame. More cost time; Table 5 shows little gain above 5."""
    num_candidates: int = 100
    """Frames that these references are chosen from, the nearest for each frame, by weights trained for it (lite)."""
    weights: Path = SHIPPED_WEIGHTS
    """Folder with landmark_generator.safetensors and renderer.safetensors."""
    face: str = "largest"
    """Which face, if there are several: largest, left, right, a number from the left (0, 1, ...) or a point as x,y."""
    keep_fps: bool = False
    """Keep the video's own frame rate instead of the 25 frames a second that the networks were made for."""
    panel: bool = False
    """Write source, sketch, reference and drawn face beside the result, to see where a fault comes from."""
    half: bool = True
    """Draw in bfloat16 where this machine is faster in it; no eye sees the difference."""
    detail: bool = True
    """Where the face is larger than the network draws it, take its fine detail from the references (as above: lite)."""
    lossless: bool = False
    """Lossless picture (H.264 in RGB; large, for scoring), so that no codec noise is measured."""
    batch_size: int = 4
    """Frames drawn at once. Larger is faster on a GPU."""


@dataclass(frozen=True)
class Summary:
    """What `Dubber.dub` did."""

    frames: int
    frames_without_face: int
    seconds: float  # wall time of the whole job
    stage_seconds: dict[str, float]  # wall time by stage
    remarks: list[str]  # what could not be decoded, and where the shot changes

    @property
    def fps(self) -> float:
        return self.frames / self.seconds


def batches(indices: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (indices[start : start + size] for start in range(0, len(indices), size))


def to_tensor(images: np.ndarray) -> torch.Tensor:
    """(..., H, W, 3) uint8 or 0..255 float -> (..., 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3), dtype=np.float32)) / 255


def points_tensor(landmarks: np.ndarray) -> torch.Tensor:
    """Landmarks of any shape as float32."""
    return torch.from_numpy(landmarks.astype(np.float32))


class References(NamedTuple):
    """What `Dubber` keeps of M reference frames."""

    features: ReferenceFeatures
    landmarks_in_crop: np.ndarray  # (M, 131, 2)
    pictures: np.ndarray | None = None  # (M, k*S, k*S, 3) uint8 RGB, to take detail from


class Dubber:
    """Both networks, ready to dub. Importable: `Dubber.from_weights(folder).dub(video, audio, output)`."""

    def __init__(
        self,
        landmark_generator: LandmarkGenerator,
        renderer: Renderer,
        device: str = "auto",
        num_references: int = Config.num_references,
        batch_size: int = Config.batch_size,
        num_candidates: int | None = None,
        detail: bool = False,
        half: bool = False,
    ) -> None:
        """`num_candidates` None: as many as in training. The tables keep to that, and to what the network draws."""
        trained = renderer.config.candidates  # 0: the same references for every frame, none is chosen
        candidates = trained if num_candidates is None or not trained else num_candidates
        command_line.at_least(1, num_references=num_references, num_candidates=num_candidates, batch_size=batch_size)
        self.device = pick_device(device)
        if self.device.type == "cpu":
            keep_memory()
        self.landmark_generator = landmark_generator.to(self.device).eval()
        self.renderer = renderer.to(self.device).eval()
        self.num_references = num_references
        self.batch_size = batch_size
        self.num_candidates = max(num_references, candidates)
        self.detail = detail and trained > 0 and renderer.config.use_warping
        self.half = half and computes_in_bf16(self.device)
        self.size = renderer.config.size

    @classmethod
    def from_weights(cls, folder: Path, device: str = "auto", **options: Any) -> "Dubber":
        """Loads both networks from a folder.

        Raises:
            UserError: a file is missing, broken, of the other stage, or made with other crop, landmark or mel settings.
        """
        if not Path(folder).is_dir():
            raise UserError(f"--weights {folder}: no folder; give one that holds {' and '.join(WEIGHT_FILES)}")
        paths = [Path(folder) / name for name in WEIGHT_FILES]
        landmark_generator, renderer = load(paths[0], stage="landmark"), load(paths[1], stage="renderer")
        # Landmarks are relative to the crop: stage 1 serves any size.
        settings.check(landmark_generator.settings, settings.current(), f"--weights: {paths[0]}")
        settings.check(renderer.settings, settings.current(renderer.config.size), f"--weights: {paths[1]}")
        return cls(landmark_generator, renderer, device, **options)

    @torch.inference_mode()
    def predict_landmarks(
        self, landmarks_in_crop: np.ndarray, references: np.ndarray, mel: np.ndarray, fps: float = sound.FPS
    ) -> np.ndarray:
        """Stage 1 over a clip: the pose stays, lip and jaw come from the sound (paper section 3.2).

        Every frame is predicted in each of the windows that hold it, and the predictions are averaged (the released
        code keeps one of them, which shakes more).

        Args:
            landmarks_in_crop: (F, 131, 2) of which only the pose prior is read.
            references: (N, 131, 2) reference landmarks in crop coordinates.
            mel: (80, columns) of the sound; frame f is heard at f / fps seconds.
            fps: frames a second of the landmarks.

        Returns:
            (F, 131, 2) landmarks with the predicted jaw and lips, in crop coordinates.
        """
        num_frames, window = len(landmarks_in_crop), self.landmark_generator.config.num_frames
        frames = window_frames(num_frames, window, fps)  # (F, T)
        times = np.arange(num_frames)[:, None] * sound.FPS / fps + np.arange(window) - window // 2  # (F, T) in 1/25 s
        # Neighbouring windows share most moments, and moments between the same two columns sound alike.
        _, first, heard = np.unique(sound.first_columns(times.ravel()), return_index=True, return_inverse=True)
        moments, heard = times.ravel()[first], torch.from_numpy(heard.reshape(times.shape))
        pose = points_tensor(landmarks_in_crop[:, POSE_SLICE])  # (F, 74, 2)
        reference = points_tensor(references).to(self.device)[None]  # (1, N, 131, 2)
        network = self.landmark_generator
        reference_tokens = network.encode_reference(reference)
        mels = (torch.from_numpy(sound.mel_windows(mel, chunk)) for chunk in batches(moments, 64))
        audio = torch.cat([network.encode_audio(m.to(self.device)[None])[0] for m in mels])  # (moments, d)
        posture = torch.cat([network.encode_pose(p.to(self.device)[None])[0] for p in pose.split(64)])  # (F, d)
        total = np.zeros((num_frames, LIP_SLICE.stop - JAW_SLICE.start, 2))
        count = np.bincount(frames.ravel())[:, None, None]  # windows that hold each frame, (F, 1, 1)
        for chunk in batches(np.arange(num_frames), 64):
            seen = torch.from_numpy(frames[chunk])
            poses = pose[seen].to(self.device)  # (B, T, 74, 2)
            lip, jaw = network.predict(audio[heard[chunk]], posture[seen], reference_tokens, poses, reference)
            content = torch.cat([jaw, lip], dim=2).cpu().double().numpy()  # (B, T, 57, 2); Apple's GPU has no float64
            np.add.at(total, frames[chunk], content)
        predicted = landmarks_in_crop.astype(np.float32).copy()
        predicted[:, JAW_SLICE.start : LIP_SLICE.stop] = total / count
        return predicted

    @torch.inference_mode()
    def encode_references(
        self, images: np.ndarray, landmarks_in_crop: np.ndarray, boxes: np.ndarray, pictures: np.ndarray | None = None
    ) -> References:
        """Features of the reference images, computed once a video.

        Args:
            images: (M, S, S, 3) uint8 RGB face crops.
            landmarks_in_crop: (M, 131, 2) of the same frames.
            boxes: (M, 4) of the same frames.
            pictures: the same crops, larger (M, k*S, k*S, 3); faces are then drawn at that size.
        """
        sketches = np.stack([self._sketch(*of) for of in zip(landmarks_in_crop, boxes, strict=True)])
        given = (to_tensor(images), to_tensor(sketches), points_tensor(landmarks_in_crop))
        features = self.renderer.encode_references(*(x.to(self.device)[None] for x in given))
        return References(features, landmarks_in_crop, pictures)

    @torch.inference_mode()
    def draw_faces(
        self, faces: np.ndarray, landmarks_in_crop: np.ndarray, sketches: np.ndarray, references: References,
        mel: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
        """Stage 2 for a batch of frames (paper section 3.3).

        Args:
            faces: (B, S, S, 3) uint8 RGB crops; the lower half is masked here and never seen by the network.
            landmarks_in_crop: (B, 131, 2) of the same frames, with the lips and jaws to draw.
            sketches: (B, T, S, S, 3) float, 0..224, of the window around each frame.
            references: from `encode_references`.
            mel: (B, 1, 80, 16) windows.

        Returns:
            drawn faces (of the references' larger size, if they have one) and aggregated warped references
            (B, S, S, 3), both float32 RGB in [0, 1].
        """
        features, pictures = references.features, references.pictures
        if self.renderer.config.candidates:
            near = nearest_references(landmarks_in_crop, references.landmarks_in_crop, self.num_references)
            features = features.choose(torch.from_numpy(near).to(self.device))
            pictures = None if pictures is None else pictures[near]
        masked_target = to_tensor(faces)  # (B, 3, S, S)
        masked_target[:, :, self.size // 2 :] = 0
        target, sketch, heard, points = (
            x.to(self.device)
            for x in (masked_target, to_tensor(sketches), torch.from_numpy(mel), points_tensor(landmarks_in_crop))
        )
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            output = self.renderer.render(target, sketch, features, heard, points)
        face = output.face
        if pictures is not None:
            face = self.renderer.sharpen(output, to_tensor(pictures).to(self.device))
        face, warped = (x.float().cpu().permute(0, 2, 3, 1).numpy() for x in (face, output.warped_reference))
        return face, warped

    def dub(
        self, video: str | Path, audio: str | Path, output: str | Path, face: str = Config.face,
        keep_fps: bool = False, panel: bool = False, lossless: bool = False, progress: bool = True,
    ) -> Summary:  # fmt: skip
        """Writes `output`: the person of `video` saying `audio`, as long as the sound.

        A video shorter than the sound runs forward and backward. Frames without a face pass through untouched.

        Raises:
            UserError: unusable input, no face in any frame, or an output that cannot be written.
                Nothing is left behind.
        """
        times = [time.perf_counter()]
        video, audio, output = map(Path, (video, audio, output))
        command_line.check_output(output, "--output", WRITTEN, inputs=(video, audio))
        damage: list[str] = []
        wav = read_audio(audio, damage)
        seconds = len(wav) / sound.SAMPLE_RATE
        if seconds < SHORTEST_SOUND:
            raise UserError(f"--audio {audio}: only {seconds:.3f} s long; at least {SHORTEST_SOUND} s are needed")
        mel = sound.log_mel(wav)  # (80, columns)
        del wav  # may be long
        source = Picture(video) if is_picture(video) else Video(video, fps=None if keep_fps else sound.FPS)
        fps = source.fps
        wanted = int(np.ceil(round(seconds * fps, 6)))
        times.append(time.perf_counter())

        tracker = Tracker(face)
        for frame in tqdm(islice(source, wanted), "finding the face", disable=not progress, unit="frame"):
            tracker.add(frame)
        track = tracker.finish()
        if not track.found.any():
            raise UserError(f"--video {video}: no face was found in any frame; choose a video where the face is seen")
        times.append(time.perf_counter())

        order = ping_pong(len(track.found), wanted)  # (wanted,) source frame of every output frame
        in_crop = to_crop(track.landmarks_in_frame, track.boxes)  # (F, 131, 2)
        filled = fill_gaps(track.found)
        with_face = np.flatnonzero(track.found)
        openness = lip_openness(in_crop[with_face], 1.0)
        listened = with_face[spread_over_openness(openness, NUM_LANDMARK_REFERENCES)]
        # A box that ends at the frame's edge would show stage 1 a stretched face, as of another pose.
        whole = smooth_boxes(box_around(track.landmarks_in_frame), track.found)  # (F, 4), may reach beyond the frame
        seen, places = to_crop(track.landmarks_in_frame, whole), filled[order]
        predicted = self.predict_landmarks(seen[places], seen[listened], mel, fps)
        predicted = to_crop(to_frame(predicted, whole[places]), track.boxes[places])
        times.append(time.perf_counter())

        shown = np.sort(with_face[spread_over_openness(openness, self.num_candidates)])
        side = np.median(track.boxes[shown, 2:] - track.boxes[shown, :2])
        factor = min(MOST_DETAIL, int(np.ceil(side / self.size))) if self.detail else 1
        sizes = [self.size, factor * self.size] if factor > 1 else [self.size]
        pictures = zip(source.frames(shown), track.boxes[shown], strict=True)
        crops = [[crop_face(frame, box, size) for size in sizes] for frame, box in pictures]
        images, *larger = (np.stack(of_size) for of_size in zip(*crops, strict=True))
        references = self.encode_references(images, in_crop[shown], track.boxes[shown], *larger)
        times.append(time.perf_counter())

        width, height = track.frame_size
        canvas = (width + height // 4, height) if panel else (width, height)
        drawn = self._draw(source.frames(order), order, track, predicted, filled, references, mel, fps, panel)
        with VideoWriter(output, fps, canvas, audio=audio, lossless=lossless) as writer:
            for frame in tqdm(drawn, "drawing", wanted, disable=not progress, unit="frame"):
                writer.write(frame)
        times.append(time.perf_counter())
        stages = dict(zip(STAGES, np.diff(times).tolist(), strict=True))
        damaged = [f"{audio}: {x}" for x in damage] + [f"{video}: {source.damage}"] * bool(source.damage)
        remarks = [f"damaged, the rest of it was used: {x}" for x in damaged]
        if len(cuts := np.flatnonzero(track.cuts) / fps):
            when = ", ".join(f"{second:.1f}" for second in cuts[:TOLD]) + ", ..." * (len(cuts) > TOLD)
            remarks.append(f"{video}: the shot changes at {when} s; whoever is seen then was redrawn too, as if it "
                           "were one person: if not, dub each shot by itself")  # fmt: skip
        return Summary(wanted, int((~track.found[order]).sum()), times[-1] - times[0], stages, remarks)

    def _sketch(self, landmarks_in_crop: np.ndarray, box: np.ndarray) -> np.ndarray:
        return draw_sketch(landmarks_in_crop, int(box[3] - box[1]), int(box[2] - box[0]), self.size)

    def _draw(
        self, frames: Iterator[np.ndarray], order: np.ndarray, track: FaceTrack, predicted: np.ndarray,
        filled: np.ndarray, references: References, mel: np.ndarray, fps: float, panel: bool,
    ) -> Iterator[np.ndarray]:  # fmt: skip
        """Yields the finished frames in order; each sketch is drawn once and kept while a window may need it."""
        windows = window_frames(len(order), self.renderer.config.num_frames, fps)  # (wanted, T)
        boxes = track.boxes[filled[order]]  # (wanted, 4), those of the nearest frame with a face
        sketches: dict[int, np.ndarray] = {}
        for batch in batches(np.arange(len(order)), self.batch_size):
            results = dict(zip(batch, frames, strict=False))  # output frame -> picture
            cells: dict[int, list[np.ndarray]] = {}  # of the panel
            seen = batch[track.found[order[batch]]]  # frames with a face
            if len(seen):
                for i in np.unique(windows[seen]):
                    if i not in sketches:
                        sketches[i] = self._sketch(predicted[i], boxes[i])
                crops = np.stack([crop_face(results[i], boxes[i], self.size) for i in seen])
                stacked = np.stack([[sketches[i] for i in window] for window in windows[seen]])  # (B, T, S, S, 3)
                mels = sound.mel_windows(mel, seen * sound.FPS / fps)
                faces, warped = self.draw_faces(crops, predicted[seen], stacked, references, mels)
                for i, drawn, aligned in zip(seen, faces, warped, strict=True):
                    new = to_frame(predicted[i], boxes[i])
                    results[i] = paste_face(results[i], drawn, boxes[i], track.landmarks_in_frame[order[i]], new)
                    if panel:
                        lines = [new[edge].round().astype(np.int32) for edge in EDGES]
                        marked = cv2.polylines(results[i].copy(), lines, isClosed=False, color=(0, 255, 0))
                        pictures = (sketches[i], aligned * 255, drawn * 255)
                        cells[i] = [crop_face(marked, boxes[i], self.size), *(p.astype(np.uint8) for p in pictures)]
                sketches = {i: sketch for i, sketch in sketches.items() if i >= windows[batch[-1]].min()}
            yield from (add_panel(r, cells.get(i, [])) if panel else r for i, r in results.items())


def main(config: Config) -> None:
    dubber = Dubber.from_weights(
        config.weights, config.device, num_references=config.num_references, batch_size=config.batch_size,
        num_candidates=config.num_candidates, detail=config.detail, half=config.half,
    )  # fmt: skip
    try:
        summary = dubber.dub(
            config.video, config.audio, config.output, config.face, config.keep_fps, config.panel, config.lossless
        )
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        wanted = f"--batch-size {config.batch_size}, --num-candidates {config.num_candidates}"
        raise UserError(f"{wanted}: too little memory on {dubber.device}; try smaller numbers") from error
    print(
        f"{config.output}: {summary.frames} frames, {summary.frames_without_face} without a face (left as they were), "
        f"{summary.seconds:.1f} s, {summary.fps:.1f} frames a second on {dubber.device}"
    )
    for line in summary.remarks:
        print(line)


if __name__ == "__main__":
    command_line.run(main, Config)
