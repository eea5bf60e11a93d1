"""What a training takes: how it learns, what it records, and the rest of `TrainingOptions`."""

from dataclasses import dataclass
from functools import partial

from baselines import MODELS, NEEDS_SOURCE_VIEW
from dataio import SceneOptions
from deep_voxels import Architecture
from losses import LossWeights
from machine.cli import number
from machine.options import Run, option
from machine.runtime import Machine
from training.recipes import RECIPES

MAX_START_EPOCH = 10**9  # then the number of a step fits tensorboard's 64 bits
recipe_option = partial(option, group="recipe")


@dataclass(frozen=True)
class Learning:
    """The options that decide what a run learns, and for how long."""

    model: str = option(
        "deepvoxels",
        "method: DeepVoxels or a baseline of the paper",
        in_test="fixed",
        choices=list(MODELS),
    )
    max_epoch: int = option(
        400, "passes over the training views", resume="changeable", type=number(int, 0)
    )
    # A resumed run inherits it if the learning rates decay, since they depend on it.
    max_steps: int | None = option(
        None,
        "total number of steps, including those before --resume",
        resume="not inherited",
        type=number(int, 1),
    )
    start_epoch: int = option(
        0,
        "number of the first epoch, with --checkpoint",
        resume="not inherited",
        type=number(int, 0, MAX_START_EPOCH),
    )
    # Each setback halves it; a resumed run that is given another begins with just that.
    lr: float = option(
        4e-4, "learning rate of all optimizers", resume="changeable", type=number(float, 0)
    )
    l1_weight: float = option(
        200.0,
        "weight of the l1 loss; the adversarial loss has weight 1",
        type=number(float, 0),
    )
    ssim_weight: float = recipe_option(
        0.0,
        "weight of 1 - SSIM, a loss that is not in the paper: 20 learns faster; 0: none",
        type=number(float, 0),
    )
    volume_limit: float = option(
        10.0,
        "value of the persistent volume above which a penalty keeps it from growing without "
        "bound; 0: none",
        resume="changeable",
        type=number(float, 0),
    )
    num_trgt: int = option(2, "target views per step", type=number(int, 1, 64))
    turn_roll: float = recipe_option(
        0.0,
        "largest roll of a target camera, in degrees: target views are turned at random, and their "
        "true images with them; 0: none",
        type=number(float, 0, 180),
    )
    turn_tilt: float = recipe_option(
        0.0,
        "standard deviation of a target camera's random yaw and pitch, in degrees; 0: none",
        type=number(float, 0, 20),
    )
    seed: int = option(
        0, "random seed of weights, view selection and dropout", type=number(int, 0, 2**63)
    )
    recipe: str = recipe_option(
        "paper",
        f"preset for {', '.join(RECIPES['fast'])}; explicit flags override it. fast: "
        + " ".join(f"--{name} {value}" for name, value in RECIPES["fast"].items()),
        choices=list(RECIPES),
    )
    optimizer: str = recipe_option(
        "adam",
        "optimizer of the convolution kernels: adam, or muon, whose steps take longer and learn "
        "more; the rest uses adam",
        choices=["adam", "muon"],
    )
    lr_decay: float = recipe_option(
        0.0,
        "fraction of the steps, at the end, over which the learning rates fall linearly to 0",
        type=number(float, 0, 1),
    )
    dropout: float = recipe_option(
        1.0, "factor on the model's dropout probabilities", type=number(float, 0, 2)
    )
    average: float = recipe_option(
        0.0,
        "decay of a moving average of the weights, which tests then use; 0: no average",
        type=number(float, 0, 0.99999),
    )

    @property
    def loss_weights(self) -> LossWeights:
        return LossWeights(self.l1_weight, self.ssim_weight, self.volume_limit)

    @property
    def num_sources(self) -> int:
        """Source views per step.

        DeepVoxels integrates one, near target 0. A model that renders a view from its source has
        one near each target (paper, section 4: 'one of the top-5 nearest neighbors').
        """
        return self.num_trgt if self.model in NEEDS_SOURCE_VIEW else 1

    def total_steps(self, num_views: int) -> int:
        """The number of steps in all, including those before `--resume`."""
        steps = self.max_epoch * num_views
        return steps if self.max_steps is None else min(steps, self.max_steps)


# Steps between waits for the device, to read the losses.
PROGRESS_EVERY = 10

record_option = partial(option, resume="changeable")


@dataclass(frozen=True)
class Records:
    """What a run writes down, and when."""

    log_every: int = record_option(
        100, "steps between pictures in tensorboard", type=number(int, 1)
    )
    validate_every: int = record_option(
        0,
        "steps between measurements of PSNR and SSIM on up to 8 held-out views (of the folder "
        "'validation' or 'test' of data_root's scene) and as many training views; 0: none. The "
        "checkpoint with the best PSNR on the held-out ones is kept besides, as best.pth",
        type=number(int, 0),
    )
    patience: int = record_option(
        0,
        "measurements of --validate_every in a row without a better PSNR that end training; 0: it "
        "goes on. With --lr_decay held-out views get better in the last steps too",
        type=number(int, 0),
    )
    checkpoint_every: int = record_option(10000, "steps between checkpoints", type=number(int, 1))
    checkpoint_minutes: float = record_option(
        30.0, "maximum minutes between checkpoints", type=number(float, 0.01)
    )
    keep_checkpoints: int = record_option(
        5, "number of checkpoints kept, the newest; 0: all", type=number(int, 0)
    )
    keep_optimizer: str = record_option(
        "all",
        "which checkpoints keep the optimizers' state, which only --resume needs and which is half "
        "to two thirds of their size: all, or only the newest (last)",
        choices=["last", "all"],
    )


@dataclass(frozen=True)
class TrainingOptions:
    """All that `--train_test train` was told. flags: the same by the flags' names, as
    checkpoints and `options.json` hold them."""

    run: Run
    learning: Learning
    architecture: Architecture
    scene: SceneOptions
    machine: Machine
    records: Records
    flags: dict[str, str | int | float | bool | None]
