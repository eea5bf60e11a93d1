"""Training: the losses, the optimizers, the loop, its logs and its checkpoints (paper, section 3.2).

    python run_deepvoxels.py --train_test train --data_root SCENE --logging_root LOGS
"""
import signal
import sys
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from tensorboardX import SummaryWriter
from torch import Tensor
from tqdm import tqdm

from data_util import color_depth, crop_border
from dataio import Scene, blind_views, draw_triplets, load_scene
from deep_voxels import DeepVoxels, Integration, Rendering, architecture_of, describe, scene_geometry
from losses import PatchDiscriminator, adversarial_loss, discriminator_loss
from projection import SceneGeometry
from util import (
    CHECKPOINT_FORMAT,
    InputError,
    describe_machine,
    load_weights,
    make_run_folder,
    restore_rng_states,
    rng_states,
    save_checkpoint,
    write_json,
)

PROGRESS_EVERY = 10


@dataclass
class Networks:
    """What training changes."""

    model: DeepVoxels
    discriminator: PatchDiscriminator
    model_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer


class Losses(NamedTuple):
    """One step's losses, averaged over targets, and its PSNR in dB; tensors, so that no step waits for the device."""

    l1: Float[Tensor, ""]
    generator: Float[Tensor, ""]
    discriminator: Float[Tensor, ""]
    psnr: Float[Tensor, ""]


class Batch(NamedTuple):
    """One training sample on the device: a source view and its targets. Images in [-1/2, 1/2]."""

    source_image: Float[Tensor, "1 3 s s"]
    source_cam2world: Float[Tensor, "1 4 4"]
    target_images: Float[Tensor, "v 3 s s"]
    target_cam2world: Float[Tensor, "v 4 4"]


def load_batch(scene: Scene, triplet, device: torch.device) -> Batch:
    """The views of a triplet (source, target 0, target 1, ...) of view indices."""
    source, targets = triplet[:1], triplet[1:]
    return Batch(scene.pixels(source, device), scene.poses(source, device),
                 scene.pixels(targets, device), scene.poses(targets, device))


def train_step(networks: Networks, batch: Batch, l1_weight: float, precision: str = "fp32",
               ) -> tuple[Losses, Rendering, Integration]:
    """One step: both gradients from one forward pass, then both updates, then the volume is remembered."""
    model, discriminator = networks.model, networks.discriminator
    with torch.autocast(batch.source_image.device.type, torch.bfloat16, enabled=precision == "bf16"):
        rendering, integration = model(batch.source_image, batch.source_cam2world, batch.target_cam2world)
        fake, real = crop_border(rendering.images), crop_border(batch.target_images)
        fake_logits, real_logits = discriminator(fake), discriminator(real)

    l1 = (fake.float() - real).abs().mean()
    generator = adversarial_loss(fake_logits.float(), real=True)
    discrimination = discriminator_loss(real_logits.float(), fake_logits.float())
    networks.model_optimizer.zero_grad()
    networks.discriminator_optimizer.zero_grad()
    (l1_weight * l1 + generator).backward(inputs=list(model.parameters()), retain_graph=True)
    discrimination.backward(inputs=list(discriminator.parameters()))
    networks.model_optimizer.step()
    networks.discriminator_optimizer.step()
    model.remember(integration.volume)

    with torch.no_grad():
        psnr = -10 * (fake.float() - real).square().mean(dim=(1, 2, 3)).log10().mean()
    return Losses(l1.detach(), generator.detach(), discrimination.detach(), psnr), rendering, integration


def train(opt: Namespace, checkpoint: dict | None) -> int:
    """Trains as the options say and returns the exit code: 0 when done, 130 when Ctrl-C ended it early.

    `checkpoint` is that of `--resume`, to be continued exactly, or of `--checkpoint`, whose weights are the start.
    """
    device = torch.device(opt.device)
    scene, geometry = load_training_scene(opt)
    networks = build_networks(opt, geometry, device)
    first_step = opt.start_epoch * len(scene)
    if opt.resume:
        first_step = restore(networks, checkpoint, opt)
    elif opt.checkpoint:
        start_from(networks, checkpoint, opt)
    total_steps = opt.max_epoch * len(scene)
    if opt.max_steps is not None:
        total_steps = min(total_steps, opt.max_steps)
    print(f"{scene.root}: {len(scene)} views at {opt.img_sidelength} pixels; "
          f"{sum(p.numel() for p in networks.model.parameters()) / 1e6:.1f} M parameters on {device}; "
          f"steps {first_step} to {total_steps}")
    if opt.dry_run:
        return 0

    logs, runs = make_run_folder(Path(opt.logging_root), "logs", "runs", name=opt.experiment_name or scene.root.name)
    write_json(logs / "options.json", {"options": vars(opt), "machine": describe_machine(device)})
    print(f"checkpoints: {logs}\ntensorboard: {runs}")
    with SummaryWriter(str(runs)) as writer, StopRequest() as stop:
        return run_steps(opt, networks, scene, range(first_step, total_steps), logs, writer, stop)


def run_steps(opt: Namespace, networks: Networks, scene: Scene, steps: range, logs: Path, writer: SummaryWriter,
              stop: "StopRequest") -> int:
    """The training loop. Returns the exit code of `train`."""
    device, psnr, triplets = torch.device(opt.device), None, None
    progress = tqdm(total=steps.stop, initial=steps.start, unit="step", dynamic_ncols=True)
    networks.model.train()
    networks.discriminator.train()
    for step in steps:
        epoch, position = divmod(step, len(scene))
        if triplets is None or position == 0:
            triplets = draw_triplets(scene.cam2world, opt.num_trgt, opt.seed, epoch)
        batch = load_batch(scene, triplets[position], device)
        losses, rendering, integration = train_step(networks, batch, opt.l1_weight, opt.precision)

        done = step + 1
        progress.update()
        if done % PROGRESS_EVERY == 0 or done == steps.stop:
            scalars = {name: value.item() for name, value in losses._asdict().items()}
            psnr = scalars["psnr"] if psnr is None else 0.9 * psnr + 0.1 * scalars["psnr"]
            progress.set_postfix(loss=f"{opt.l1_weight * scalars['l1'] + scalars['generator']:.2f}",
                                 psnr=f"{psnr:.2f}")
            for name, value in scalars.items():
                writer.add_scalar(name, value, done)
        if done % opt.log_every == 0:
            write_pictures(writer, done, batch, rendering, integration)
        if done % opt.checkpoint_every == 0 and done != steps.stop and not stop.requested:
            save(opt, networks, logs, done, epoch)
        if stop.requested:
            break
    progress.close()
    if len(steps):
        print(f"saved {save(opt, networks, logs, done, epoch)}")
    return 130 if stop.requested else 0


def build_networks(opt: Namespace, geometry: SceneGeometry, device: torch.device) -> Networks:
    """Fresh networks, initialised from `--seed`, and their optimizers."""
    torch.manual_seed(opt.seed)
    networks = DeepVoxels(architecture_of(opt), geometry).to(device), PatchDiscriminator().to(device)
    if opt.compile:
        for network in networks:
            network.compile()
    return Networks(*networks, *(torch.optim.Adam(network.parameters(), lr=opt.lr, fused=True)
                                 for network in networks))


def load_training_scene(opt: Namespace) -> tuple[Scene, SceneGeometry]:
    """The training views that see the grid; those that do not are named in a warning and left out."""
    scene = load_scene(Path(opt.data_root), opt.img_sidelength, opt.sampling_pattern, opt.background)
    geometry = scene_geometry(scene.intrinsics, architecture_of(opt), opt.near_plane)
    blind = blind_views(scene, geometry, lifting=True)
    if len(blind) == len(scene):
        raise InputError(f"{scene.root}: no camera sees anything of the grid; check origin, scale and near plane in "
                         "intrinsics.txt, and that the poses are camera-to-world")
    if len(scene) - len(blind) < 2:
        raise InputError(f"{scene.root}: has {len(scene) - len(blind)} view to train on, two are the least")
    for view in blind:
        print(f"warning: {scene.root}/pose/{scene.names[view]}.txt: sees nothing of the grid and is left out",
              file=sys.stderr)
    return scene.subset([i for i in range(len(scene)) if i not in blind]), geometry


def start_from(networks: Networks, checkpoint: dict, opt: Namespace) -> None:
    """Takes the weights and the volume of a checkpoint, and the discriminator's if it has one."""
    load_weights(networks.model, checkpoint["model"], Path(opt.checkpoint), describe(architecture_of(opt)))
    if checkpoint["discriminator"]:
        load_weights(networks.discriminator, checkpoint["discriminator"], Path(opt.checkpoint), "the discriminator")


def restore(networks: Networks, checkpoint: dict, opt: Namespace) -> int:
    """Puts everything back as it was when the checkpoint was saved. Returns the number of steps done by then."""
    path = Path(opt.resume)
    for part in ("model_optimizer", "discriminator_optimizer", "step", "rng"):
        if part not in checkpoint:
            raise InputError(f"--resume {path}: has no {part!r} to continue with; --checkpoint starts from its weights")
    load_weights(networks.model, checkpoint["model"], path, describe(architecture_of(opt)))
    load_weights(networks.discriminator, checkpoint["discriminator"], path, "the discriminator")
    networks.model_optimizer.load_state_dict(checkpoint["model_optimizer"])
    networks.discriminator_optimizer.load_state_dict(checkpoint["discriminator_optimizer"])
    restore_rng_states(checkpoint["rng"])
    return checkpoint["step"]


def save(opt: Namespace, networks: Networks, logs: Path, step: int, epoch: int) -> Path:
    """Writes a checkpoint from which `--resume` continues exactly."""
    path = logs / f"model-epoch_{epoch}_iter_{step}.pth"
    save_checkpoint(path, {
        "format_version": CHECKPOINT_FORMAT,
        "model": networks.model.state_dict(), "discriminator": networks.discriminator.state_dict(),
        "model_optimizer": networks.model_optimizer.state_dict(),
        "discriminator_optimizer": networks.discriminator_optimizer.state_dict(),
        "step": step, "epoch": epoch, "rng": rng_states(), "options": vars(opt)})
    return path


def write_pictures(writer: SummaryWriter, step: int, batch: Batch, rendering: Rendering, integration: Integration,
                   ) -> None:
    """Source, output beside truth for every target, depth, and the gates of the GRU, averaged along z, y and x."""
    def as_rgb(images: Tensor) -> Tensor:
        return (images.detach().float().cpu() + 0.5).clamp(0, 1)

    writer.add_image("source", as_rgb(batch.source_image[0]), step)
    pairs = torch.cat([as_rgb(rendering.images), as_rgb(batch.target_images)], dim=3)
    writer.add_image("output_and_truth", torch.cat(list(pairs), dim=1), step)
    if rendering.depth is not None:
        depth = rendering.depth.detach().float().cpu()[:, 0].numpy()
        colors = color_depth(depth, float(depth.min()), float(depth.max()))
        writer.add_image("depth", np.concatenate(list(colors), axis=1), step, dataformats="HWC")
    for name, gate in [("update_gate", integration.update_gate), ("reset_gate", integration.reset_gate)]:
        gate = gate.detach().float().cpu()[0]
        writer.add_image(name, torch.cat([gate.mean(dim=axis) for axis in (1, 2, 3)], dim=2), step)


class StopRequest:
    """Turns the first Ctrl-C into a request, so that the step at hand ends and is saved; a second one interrupts."""

    def __init__(self):
        self.requested = False

    def __enter__(self) -> "StopRequest":
        self._previous = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(self, *_) -> None:
        signal.signal(signal.SIGINT, self._previous)

    def _request(self, *_) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, self._previous)
