"""Estimates with stage 1 by how many frames each clip's sound is off. Late or early sound teaches stage 1 nothing.

Unlike SyncNet, this needs no external weights and no second decoding. Clips that the weights were trained on always
look right: use weights from the first few thousand steps of a run, or from a run on other clips.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy import ndarray
from scipy import ndimage

from datasets.clip_cache import ClipCache, read_metadata
from datasets.splits import quoted, read_list, read_words, select_shard
from evaluation.generate_videos import WORKER_DIED, do_all
from evaluation.validation import ClipFaces, predict
from face.landmarks import MIDDLE_LIPS
from media.audio import COLUMNS_PER_SECOND, FPS
from metrics.lip_motion import correlation
from networks import SHIPPED_WEIGHTS, LandmarkPredictor, load_landmark_generator
from runtime.command_line import UserError, at_least_one, check_output, naming, write_whole

MOST = 5  # largest offset, in frames
MIN_FRAMES = 60  # with a face; shorter clips are left as they are
MIN_CORRELATION = 0.2  # at a lower one the sound is left as it is
MIN_GAIN = 0.02  # in correlation, for which sound is moved
MIN_CERTAINTY = 0.98
SMOOTHING = (0.25, 0.5, 0.25)  # over neighbouring offsets
BLOCK = FPS // 2  # frames resampled together, because neighbours are alike
RESAMPLES = 500
HEAD = "# frames: shift of the sound, in frames at 25 fps; negative is earlier\n"


@dataclass(frozen=True)
class Offsets:
    """Lists by how many frames the sound of each clip is off, for python -m preprocess --audio-shift.

    In each line of the list, frames is the new shift, which includes the one that the cache was made with; best is the
    offset with the highest correlation; and sure is the share of resampled clips in which best beats no offset. The
    sound is moved if sure is at least 0.98. Clips that are already in the list are skipped, so the same command again
    continues.
    """

    cache: Path
    """Clip cache, see python -m preprocess."""
    output: Path
    """The list to write (.txt)."""
    weights: Path = SHIPPED_WEIGHTS
    """Folder with landmark_generator.safetensors."""
    workers: int = 1
    """Number of processes."""
    shard: str = "1/1"
    """i/n: only the i-th of n parts of the cache. Each part needs a list of its own."""
    device: str = "auto"
    """cpu, cuda, mps or auto."""

    def run(self) -> None:
        """Adds the missing clips to the list."""
        check_output(self.output, "--output", (".txt",))
        at_least_one(workers=self.workers)
        cache, _ = _open(self)
        with naming("--shard"):
            names = select_shard(cache.names, self.shard)
        text = self.output.read_text(encoding="utf-8") if self.output.exists() else HEAD
        write_whole(self.output, text[: text.rfind("\n") + 1])  # a killed run may have left half a line
        finished = {words[0] for words in read_words(self.output)}
        remaining = [name for name in names if name not in finished]
        print(f"{len(names)} clips, {len(names) - len(remaining)} finished before")
        lines = do_all(partial(estimate, offsets=self), remaining, self.workers, "offsets")
        with self.output.open("a", encoding="utf-8") as file:
            for name, line in lines:
                file.write(f"# {name}: {line}\n" if line == WORKER_DIED else line)
                file.flush()
        moved = sum(words.get("frames", "0") != "0" for words in read_list(self.output).values())
        print(f"{self.output}: {moved} clips have their sound moved")


@lru_cache(maxsize=1)
def _open(offsets: Offsets) -> tuple[ClipCache, LandmarkPredictor]:
    """Opens the cache and the weights, once in each process."""
    with naming("--weights"):
        predictor = LandmarkPredictor(load_landmark_generator(offsets.weights), offsets.device)
    return ClipCache(offsets.cache, None), predictor


def estimate(name: str, offsets: Offsets) -> str:
    """Returns a clip's line of the list; for a damaged clip, a comment that says so."""
    cache, predictor = _open(offsets)
    try:
        clip = cache.open(name)
    except UserError as error:
        return f"# {error}\n"
    shift = read_metadata(offsets.cache, name)["sound_shift"]
    if clip.num_found < MIN_FRAMES:
        return f"{quoted(name)} frames={shift} short\n"
    faces = ClipFaces(clip)
    openness = []  # (F,) predicted with the sound moved by each offset
    for frames in range(-MOST, MOST + 1):
        columns = round(frames * COLUMNS_PER_SECOND / FPS)
        moved = predict(predictor, faces, mel=np.roll(clip.mel, columns, axis=1))
        openness.append(moved.openness(MIDDLE_LIPS))
    correlations = np.nan_to_num([correlation(row, faces.openness) for row in openness])
    best = best_offset(correlations)
    position = MOST + best
    sure = certainty(openness[position], openness[MOST], faces.openness) if best else 1.0
    if sure >= MIN_CERTAINTY:
        shift += best
    return f"{quoted(name)} frames={shift} best={best} correlation={correlations[position]:.2f} sure={sure:.2f}\n"


def best_offset(correlations: ndarray) -> int:
    """Returns the offset in frames with the best of correlations (2 * most + 1,); 0 unless it is clearly better."""
    smooth = ndimage.convolve1d(correlations, SMOOTHING, mode="nearest")
    best = int(smooth.argmax())
    middle = len(smooth) // 2
    enough = max(MIN_CORRELATION, smooth[middle] + MIN_GAIN)
    return best - middle if smooth[best] >= enough else 0


def certainty(moved: ndarray, unmoved: ndarray, true: ndarray) -> float:
    """Returns the share of resampled clips in which moved sound predicts the true openness (F,) better than unmoved.

    Blocks of half a second are drawn with replacement. Better means a higher correlation.
    """
    rng = np.random.default_rng(0)
    num_blocks = len(true) // BLOCK
    wins = 0
    for starts in rng.integers(0, len(true) - BLOCK + 1, (RESAMPLES, num_blocks)):
        frames = (starts[:, None] + np.arange(BLOCK)).ravel()
        wins += correlation(moved[frames], true[frames]) > correlation(unmoved[frames], true[frames])
    return wins / RESAMPLES
