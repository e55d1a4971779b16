"""SyncNet: the public file's shapes, the published evaluation step by step, and known shifts."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import python_speech_features
import torch
from torch import nn

from metrics.syncnet import SyncNet, embed, load, mfcc_columns, score
from runtime.command_line import UserError

# Key -> shape of every weight of more than one axis in syncnet_v2.model.
PUBLISHED = {
    "netcnnaud.0.weight": (64, 1, 3, 3), "netcnnaud.4.weight": (192, 64, 3, 3), "netcnnaud.8.weight": (384, 192, 3, 3),
    "netcnnaud.11.weight": (256, 384, 3, 3), "netcnnaud.14.weight": (256, 256, 3, 3),
    "netcnnaud.18.weight": (512, 256, 5, 4), "netcnnlip.0.weight": (96, 3, 5, 7, 7),
    "netcnnlip.4.weight": (256, 96, 1, 5, 5), "netcnnlip.8.weight": (256, 256, 1, 3, 3),
    "netcnnlip.11.weight": (256, 256, 1, 3, 3), "netcnnlip.14.weight": (256, 256, 1, 3, 3),
    "netcnnlip.18.weight": (512, 256, 1, 6, 6), "netfcaud.0.weight": (512, 512), "netfcaud.3.weight": (1024, 512),
    "netfclip.0.weight": (512, 512), "netfclip.3.weight": (1024, 512),
}  # fmt: skip
NORMS = [
    "netcnnaud.1",
    "netcnnaud.5",
    "netcnnaud.19",
    "netcnnlip.1",
    "netcnnlip.5",
    "netcnnlip.19",
    "netfcaud.1",
    "netfclip.1",
]


def random_network(seed: int = 0) -> SyncNet:
    torch.manual_seed(seed)
    return SyncNet().eval()


def test_weights_have_the_published_names_and_shapes() -> None:
    state = random_network().state_dict()
    assert {k: tuple(v.shape) for k, v in state.items() if v.ndim > 1} == PUBLISHED
    for norm in NORMS:
        assert f"{norm}.running_mean" in state


def test_state_dict_loads_and_another_file_is_refused(tmp_path: Path) -> None:
    network = random_network()
    torch.save(network.state_dict(), tmp_path / "syncnet_v2.model")
    loaded = load(tmp_path / "syncnet_v2.model")
    assert not loaded.training
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    torch.save({"other": torch.zeros(1)}, tmp_path / "wrong.model")
    with pytest.raises(UserError, match=r"wrong\.model"):
        load(tmp_path / "wrong.model")


def test_mfcc_equals_that_of_16_bit_samples() -> None:
    samples = (np.random.default_rng(0).standard_normal(16000) * 3000).astype(np.int16)
    theirs = python_speech_features.mfcc(samples, 16000)
    np.testing.assert_allclose(mfcc_columns(samples.astype(np.float32) / 32768), theirs.T, rtol=1e-4, atol=1e-4)


def public_evaluation(network: SyncNet, frames: np.ndarray, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The published evaluation: the whole clip in memory, one window at a time."""
    video = torch.from_numpy(frames[..., ::-1].astype(np.float32)).permute(3, 0, 1, 2)[None]  # (1, 3, F, H, W) BGR
    cepstrum = torch.from_numpy(python_speech_features.mfcc(samples, 16000).T.astype(np.float32))[None, None]
    last = min(len(frames), len(samples) // 640) - 5
    with torch.no_grad():
        lips = [network.embed_lips(video[:, :, i : i + 5]) for i in range(last)]
        sound = [network.embed_sound(cepstrum[..., 4 * i : 4 * i + 20]) for i in range(last)]
    return torch.cat(lips).numpy(), torch.cat(sound).numpy()


@pytest.mark.slow
def test_embeddings_equal_the_published_evaluation() -> None:
    random = np.random.default_rng(1)
    frames = random.integers(0, 256, (16, 224, 224, 3), dtype=np.uint8)
    samples = (random.standard_normal(640 * 16) * 2000).astype(np.int16)
    network = random_network()
    lips, sound = embed(network, iter(frames), samples.astype(np.float32) / 32768)
    their_lips, their_sound = public_evaluation(network, frames, samples)
    assert lips.shape == sound.shape == (11, 1024)
    np.testing.assert_allclose(lips, their_lips, atol=1e-4)
    np.testing.assert_allclose(sound, their_sound, atol=1e-3)


def test_clip_shorter_than_a_window_has_no_score() -> None:
    embeddings = embed(random_network(), np.zeros((5, 224, 224, 3), np.uint8), np.zeros(16000, np.float32))
    assert score(*embeddings) == {}, "an offset of 0 would count as in step"


@pytest.mark.parametrize("shift", [-7, 0, 3])
def test_known_shift_is_found(shift: int) -> None:
    """Sound embeddings equal the lips' `shift` frames later: distance 0 there, offset with the published sign."""
    torch.manual_seed(2)
    signal = torch.randn(120, 64)
    lips, sound = signal[20:100], signal[20 + shift : 100 + shift]
    result = score(lips, sound)
    assert result["offset"] == shift
    assert result["LSE-D"] < 2.0  # only from the zeros at the end of the sound
    assert result["LSE-C"] > 5
    swapped = score(lips, torch.randn(80, 64))
    assert swapped["LSE-C"] < 2


def test_scores_equal_the_plain_formula() -> None:
    torch.manual_seed(3)
    lips, sound = torch.randn(40, 8), torch.randn(40, 8)
    padded = nn.functional.pad(sound, (0, 0, 15, 15)).numpy()
    means = [np.linalg.norm(lips.numpy() - padded[s : s + 40] + 1e-6, axis=1).mean() for s in range(31)]
    result = score(lips, sound)
    assert result["LSE-D"] == pytest.approx(min(means), abs=1e-5)
    assert result["LSE-C"] == pytest.approx(np.median(means) - min(means), abs=1e-5)
    assert result["offset"] == 15 - int(np.argmin(means))


def test_frames_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    network = random_network()
    monkeypatch.setattr(network, "embed_lips", lambda x: torch.zeros(len(x), 4))
    monkeypatch.setattr(network, "embed_sound", lambda x: torch.zeros(len(x), 4))
    frame = np.zeros((224, 224, 3), np.uint8)
    peaks = []
    for count in (10, 40):
        tracemalloc.start()
        lips, _ = embed(network, (frame.copy() for _ in range(count)), np.zeros(640 * 40, np.float32))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(lips) == count - 5
    assert peaks[1] < peaks[0] + 10 * frame.nbytes
