"""What a training run reports on the terminal: its progress and its losses."""

import sys

from losses import LossWeights
from machine.progress import Progress


class ProgressBar(Progress):
    """A run's progress on the terminal, with its loss and its PSNR (dB), a moving average."""

    def __init__(self, steps: range):
        super().__init__(total=steps.stop, initial=steps.start, unit="step")
        self._psnr = None
        self._shown = {}

    def show(self, losses: dict[str, float], weights: LossWeights) -> None:
        """Shows a step's losses by their names in `training.step.Losses`."""
        if self._psnr is None:
            self._psnr = losses["psnr"]
        else:
            self._psnr = 0.9 * self._psnr + 0.1 * losses["psnr"]
        self._shown |= {
            "loss": f"{weights.total(losses):.2f}",
            "psnr": f"{self._psnr:.2f}",
        }
        if "volume_max" in losses:
            self._shown["volume"] = f"{losses['volume_max']:.2f}"
        self.set_postfix(self._shown)

    def show_validation(self, metrics: dict[str, float]) -> None:
        """Shows PSNR and SSIM of held-out views, and by how much PSNR is higher on training views,
        until the next ones."""
        self._shown |= {
            "val_psnr": f"{metrics['psnr']:.2f}",
            "val_ssim": f"{metrics['ssim']:.3f}",
            "gap": f"{metrics['gap']:.2f}",
        }
        self.set_postfix(self._shown)

    def report(self, kind: str, message: str) -> None:
        """Prints a line above the bar, on stderr; kind: 'warning' or 'error'."""
        self.write(f"{kind}: {message}", file=sys.stderr)
