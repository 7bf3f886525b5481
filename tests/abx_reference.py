"""Items and features that zrc_abx2 and ours are both asked about, made of whole numbers from a seed.

`python tests/abx_reference.py FOLDER` writes them as zerospeech-libriabx2 0.9.8 reads them; its scores come from
`zrc-abx2 FOLDER/features FOLDER/made-reference.item --max_size_group 100 --max_x_across 100`, under Python 3.11 and
torch 2.15. (It imports torchaudio, for CPC's checkpoints alone; an empty module of that name will do.)
"""

import sys
from pathlib import Path

import numpy as np

HOP, DIM, SPEAKERS, FILES, ITEMS = 160, 6, 4, 3, 10  # FILES of each speaker, ITEMS of each file
PHONES, CONTEXTS = ("AA", "B", "S"), (("K", "T"), ("M", "NG"))
HEADER = "#file onset offset #phone prev-phone next-phone speaker"


def reference():
    """Make the lines of an item file, and the features of each of its files.

    The stream of `RandomState` is frozen, and of it only whole numbers are used. Times are multiples of 0.1 ms that no
    frame's centre falls on. Of each speaker one item is silent (its frames are zero), and one too short for a frame.
    """
    random = np.random.RandomState(208)
    means = random.randint(-20, 21, (len(PHONES), DIM))
    slopes = random.randint(-2, 3, (len(PHONES), DIM))
    accents = random.randint(-12, 13, (SPEAKERS, DIM))
    lines, features = [HEADER], {}
    for number in range(SPEAKERS * FILES):
        speaker, name, now = number % SPEAKERS, f"f{number:02d}", random.randint(1, 49)
        frames = random.randint(-30, 31, (ITEMS * 10 + 2, DIM))
        for place in range(ITEMS):
            phone, context = random.randint(len(PHONES)), random.randint(len(CONTEXTS))
            short = number < SPEAKERS and place == 3
            until = now + (40 if short else random.randint(170, 950))
            until += not until % 50
            inside = slice(round(now / 100), round(until / 100) + 1)
            steps = np.arange(len(frames[inside]))[:, None]
            frames[inside] += means[phone] + slopes[phone] * steps + accents[speaker]
            if number < SPEAKERS and place == 6:
                frames[inside] = 0
            before, after = CONTEXTS[context]
            lines.append(f"{name} {now / 1e4:.4f} {until / 1e4:.4f} {PHONES[phone]} {before} {after} s{speaker}")
            now = until
        features[name] = frames.clip(-127, 127).astype(np.float32) / 128
    return lines, features


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    (folder / "features").mkdir(parents=True)
    lines, features = reference()
    (folder / "made-reference.item").write_text("\n".join(lines) + "\n")
    for name, frames in features.items():
        np.save(folder / "features" / f"{name}.npy", frames)
