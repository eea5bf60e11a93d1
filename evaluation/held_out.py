"""A checkpoint that held-out views chose: by which views, and whether a test measures them too."""

import math
from dataclasses import asdict, dataclass

from dataio import Scene
from util import one_line

MAX_MEASURED = 8  # most held-out views, and most training views, that a training measures


@dataclass(frozen=True)
class HeldOutPsnr:
    """How good the weights of a step are on held-out views.

    psnr: in dB, the mean over the views. split, views: of which split of the scene they are, and
    how many. fingerprint: theirs (`Scene.fingerprint`), which is the same wherever they lie.
    """

    step: int
    psnr: float
    split: str
    views: int
    fingerprint: str

    @classmethod
    def of(cls, step: int, psnr: float, split: str, views: Scene) -> "HeldOutPsnr":
        """Images that are not finite have no PSNR; they count as the worst, which has 0 dB."""
        return cls(
            step, 0.0 if math.isnan(psnr) else float(psnr), split, len(views), views.fingerprint
        )

    def beats(self, other: "HeldOutPsnr | None") -> bool:
        """Whether it is better than another one. A PSNR of other views compares with nothing."""
        if other is None or other.fingerprint != self.fingerprint:
            return True
        return self.psnr > other.psnr

    def __str__(self) -> str:
        return f"{self.psnr:.2f} dB on {self.views} {one_line(self.split)} views"


def every_nth(count: int) -> range:
    """The indices of every nth of `count` views, so that they are at most `MAX_MEASURED`."""
    return range(0, count, (count - 1) // MAX_MEASURED + 1)


def chosen_by(checkpoint: dict) -> HeldOutPsnr | None:
    """What made a checkpoint the best of its run (`best.pth`); None for any other one."""
    record = checkpoint.get("chosen_by")
    return HeldOutPsnr(**record) if record else None


def describe_checkpoint(checkpoint: dict, scene: Scene) -> dict:
    """What `metrics.json` says of the checkpoint of a test: its step, and by which held-out views
    it was chosen, if it was. measured_here: whether the test measures them too."""
    choice = chosen_by(checkpoint)
    described = None
    if choice is not None:
        measured_here = False
        if scene.images is not None:
            views = scene.subset(list(every_nth(len(scene))))
            measured_here = views.fingerprint == choice.fingerprint
        described = {**asdict(choice), "measured_here": measured_here}
    return {"step": checkpoint.get("step"), "chosen_by": described}
