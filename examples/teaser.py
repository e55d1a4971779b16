"""Makes the animated picture of the README: source, landmarks, result. `make picture` makes the dub that it reads."""

from itertools import islice

import numpy as np
from PIL import Image

from media.video import Video

SIDE = 288  # pixels of each of the three parts
FACE = (155, 60, 305, 210)  # the part of the portrait that is shown
SKETCH = (512, 128, 640, 256)  # position of the sketch beside the dub

if __name__ == "__main__":
    source = Image.open("assets/portrait.png").crop(FACE)
    rows = []
    for frame in islice(Video("outputs/panel.mp4"), 125):
        dubbed = Image.fromarray(frame)
        parts = (source, dubbed.crop(SKETCH), dubbed.crop(FACE))
        pictures = [np.asarray(part.resize((SIDE, SIDE))) for part in parts]
        rows.append(Image.fromarray(np.hstack(pictures)))
    rows[0].save("assets/dub.webp", save_all=True, append_images=rows[1:], duration=40, quality=75)
