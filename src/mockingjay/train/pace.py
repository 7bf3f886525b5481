"""When to speak and, where no number of steps is set, when to save: by the clock."""

import time
from collections.abc import Callable
from typing import Any

from mockingjay.train.loop import Tick

SILENCE = 20.0  # seconds; the longest time without a line of progress
SAVE = 120.0  # seconds from one checkpoint to the next


class Pace:
    """Keeps the time of a run that has `step` of its `steps` behind it."""

    def __init__(self, say: Callable[[str], None], steps: int, step: int) -> None:
        self.say, self.steps, self.first = say, steps, step
        self.began = self.saved = time.monotonic()
        self.spoken = -SILENCE

    def save_due(self, step: int, every: int | None) -> bool:
        """Whether a checkpoint is due: every so many steps, or by the clock."""
        now = time.monotonic()
        due = step % every == 0 if every else now - self.saved > SAVE
        if due:
            self.saved = now
        return due

    def tell(self, tick: Tick, row: dict[str, Any] | None, last: bool) -> None:
        """Say how it goes, now and then."""
        now = time.monotonic()
        validation = (row or {}).get("validation")
        if not last and now - self.spoken < (SILENCE / 4 if validation else SILENCE):
            return
        self.spoken = now
        done = tick.step - self.first
        left = (self.steps - tick.step) * (now - self.began) / done
        speed = tick.audio_seconds / tick.seconds
        words = f"step {tick.step}/{self.steps}  loss {tick.loss:.4f}  {speed:.0f} s of audio per s"
        if validation:
            words += "  held out: " + ", ".join(f"{name} {value:.3f}" for name, value in validation.items())
        self.say(words if last else f"{words}  {clock(left)} left")


def clock(seconds: float) -> str:
    """Write a duration for people."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"
