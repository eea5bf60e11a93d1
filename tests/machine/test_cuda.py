"""What a CPU can prove about CUDA, on fake tensors; and the same on a real GPU, where there is
one."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from data_util import crop_border
from dataio import Views
from deep_voxels import Architecture, DeepVoxels
from evaluation.render import view_renderer
from losses import LossWeights, PatchDiscriminator, adversarial_loss, discriminator_loss
from machine.runtime import channels_last_
from projection import SceneGeometry
from run_deepvoxels import main
from tests.helpers import CPU, ROOT, arguments, final_checkpoint, new_training, render_arguments
from training.data import load_batch
from training.muon import Muon, kernels_of, orthogonalized
from training.recipes import scale_dropout_
from training.step import train_step

ARCHITECTURES = [
    Architecture(64, 16, 8, 4, 4),
    Architecture(64, 16, 8, 4, 4, no_occlusion_net=True),
]
GEOMETRY = SceneGeometry(8, 0.125, (0.0, 0.0, 0.0), 1.0, 16, 17.0, 8.0, 8.0)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


class Devices(TorchDispatchMode):
    """The operations, while this is active, whose results do not lie on CUDA."""

    def __init__(self):
        super().__init__()
        self.elsewhere = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [
            value
            for value in (result if isinstance(result, (tuple, list)) else [result])
            if isinstance(value, torch.Tensor)
        ]
        self.elsewhere += [
            f"{function} -> {value.device}" for value in tensors if value.device.type != "cuda"
        ]
        return result


@pytest.fixture
def fake_cuda():
    """Tensors without values on a GPU that is not there. Whatever asks for a value, as each wait
    for the device does, raises. cuDNN is off, since `grid_sample` has no fake kernel there."""
    with (
        torch.backends.cudnn.flags(enabled=False),
        FakeTensorMode(allow_non_fake_inputs=False),
        torch.device("cuda"),
    ):
        yield


def fake_views() -> Views:
    return Views(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), torch.eye(4).repeat(4, 1, 1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_forward_pass_of_a_step_stays_on_the_device_and_never_waits(architecture, fake_cuda):
    model, discriminator = (
        channels_last_(network)
        for network in (DeepVoxels(architecture, GEOMETRY), PatchDiscriminator())
    )
    with Devices() as devices:
        batch = load_batch(fake_views(), np.array([0, 1, 2]))
        rendering, integration = model(
            batch.source_image, batch.source_cam2world, batch.target_cam2world
        )
        fake = crop_border(rendering.images)
        real = crop_border(batch.target_images)
        fake_logits = discriminator(fake)
        real_logits = discriminator(real)
        loss = (
            (fake.float() - real).abs().mean()
            + adversarial_loss(fake_logits.float(), real=True)
            + discriminator_loss(real_logits.float(), fake_logits.float())
        )
        model.remember(integration.volume)
    assert isinstance(loss, FakeTensor)
    assert loss.device.type == model.deepvoxels.device.type == "cuda"
    assert not devices.elsewhere


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_tests_frames_stay_on_the_device_and_never_wait(architecture, fake_cuda):
    model = channels_last_(DeepVoxels(architecture, GEOMETRY).eval())
    with Devices() as devices, torch.inference_mode():
        rendering = view_renderer(model, None, torch.device("cuda"))(fake_views().cam2world)
    assert rendering.images.shape == (4, 3, 64, 64)
    assert rendering.images.device.type == "cuda"
    assert not devices.elsewhere


def test_a_step_of_muon_stays_on_the_device_and_never_waits(fake_cuda):
    kernels = kernels_of(DeepVoxels(ARCHITECTURES[0], GEOMETRY))
    optimizer = Muon(kernels, 1e-3)
    optimizer.found_inf = torch.zeros(())
    for kernel in kernels:
        kernel.grad = torch.zeros_like(kernel)
    with Devices() as devices:
        optimizer.step()
    assert not devices.elsewhere


def test_a_wait_for_the_device_would_be_seen(fake_cuda):
    with pytest.raises(Exception, match="data-dependent|_local_scalar_dense|item"):
        float(torch.ones(1).sum())
    with Devices() as devices:
        torch.zeros(1, device="cpu")
    assert devices.elsewhere


# What PyTorch asks of CUDA before it goes backward: how many GPUs there are, and whether somebody
# uses one of them.
NUMBER_OF_GPUS = """
int gpus = 0;
signed char _ZN3c104cuda12device_countEv(void) { return gpus; }
"""
DRIVER = """
int cuDevicePrimaryCtxGetState(int device, unsigned *flags, int *active) {
    *active = 0;
    return 0;
}
"""


@pytest.fixture(scope="module")
def pretended_gpus(tmp_path_factory) -> Path:
    """A folder with the two libraries."""
    folder = tmp_path_factory.mktemp("gpus")
    for name, source in [("libgpus.so", NUMBER_OF_GPUS), ("libcuda.so.1", DRIVER)]:
        (folder / "source.c").write_text(source)
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-o", folder / name, folder / "source.c"], check=True
        )
    return folder


@pytest.mark.skipif(
    sys.platform != "linux" or not torch.version.cuda or not shutil.which("gcc"),
    reason="needs Linux, PyTorch with CUDA, and gcc",
)
@pytest.mark.parametrize(
    "optimizer, precision, dtype",
    [("adam", "fp32", "float32"), ("muon", "bf16", "bfloat16")],
)
def test_a_whole_training_step_at_the_papers_size_stays_on_the_device_and_never_waits(
    optimizer, precision, dtype, pretended_gpus
):
    """The batch, forward, both backward passes, the guard, the optimizers and the average. Turned
    targets too, whose turns are drawn on the host."""
    library = str(pretended_gpus / "libgpus.so")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.machine.fake_step", library, optimizer, precision],
        cwd=ROOT,
        env={**os.environ, "LD_PRELOAD": library, "LD_LIBRARY_PATH": str(pretended_gpus)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    step = json.loads(ended.stdout)
    print(
        f"{optimizer}, {precision}: {step['dispatched']} operations, of which {step['launched']} "
        f"compute; {step['gflop']} GFLOP in convolutions and matrix products; "
        f"{step['gigabytes']} GB read and written"
    )
    assert not step["elsewhere"]
    assert step["on_host"] == 0
    assert step["devices"] == ["cuda:0"]
    assert list(step["convolutions"]) == [f"torch.{dtype}"]


def networks_on(device: torch.device, scene, logs, *flags):
    """Networks without dropout, whose random numbers are the device's own, and the views, both on
    the device."""
    words = arguments(scene, logs, "--dropout", 0, *flags)
    training = new_training(*words, "--device", device)
    scale_dropout_(training.networks.discriminator, 0.0)
    return training.networks, training.scene.on(device)


def test_what_is_compared_with_the_cpu_computes_in_float32(scene, tmp_path, monkeypatch):
    """TF32, PyTorch's default for convolutions on CUDA, would be off by more than the tolerance."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    networks_on(CPU, scene, tmp_path)
    assert not torch.backends.cudnn.allow_tf32


@needs_gpu
@pytest.mark.parametrize("flags", [(), ("--no_occlusion_net",)])
def test_a_training_step_on_cuda_equals_the_cpus(flags, scene, tmp_path):
    steps = []
    norms = []
    for device in (CPU, torch.device("cuda")):
        networks, views = networks_on(device, scene, tmp_path, *flags)
        steps.append(train_step(networks, load_batch(views, np.array([0, 1, 2])), LossWeights()))
        norms.append([float(parameter.grad.norm()) for parameter in networks.model_parameters])
    for one, other in [
        *zip(*(step.losses.known.values() for step in steps), strict=True),
        (steps[0].rendering.images, steps[1].rendering.images),
        (steps[0].integration.volume, steps[1].integration.volume),
    ]:
        torch.testing.assert_close(other.cpu(), one, atol=1e-3, rtol=1e-3)
    assert norms[1] == pytest.approx(norms[0], rel=1e-3, abs=1e-3 * max(norms[0]))


@needs_gpu
def test_muons_directions_on_cuda_are_the_cpus_but_for_bfloat16():
    kernels = [torch.randn(shape) for shape in ((16, 8, 4, 4), (32, 16, 3, 3), (8, 64))]
    on_cuda = orthogonalized([kernel.to("cuda") for kernel in kernels], 1.0)
    for direction, expected in zip(on_cuda, orthogonalized(kernels, 1.0), strict=True):
        assert (direction.cpu() - expected).norm() < 0.05 * expected.norm()


@needs_gpu
def test_no_training_step_waits_for_cuda(scene, tmp_path):
    networks, views = networks_on(torch.device("cuda"), scene, tmp_path)
    train_step(networks, load_batch(views, np.array([0, 1, 2])), LossWeights())
    torch.cuda.set_sync_debug_mode("error")
    try:
        train_step(networks, load_batch(views, np.array([0, 1, 2])), LossWeights())
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_gpu
def test_compiled_networks_train_and_test_on_cuda(scene, tmp_path):
    assert (
        main([*arguments(scene, tmp_path, "--max_steps", 3, "--compile"), "--device", "cuda"]) == 0
    )
    path, checkpoint = final_checkpoint(tmp_path, 3)
    assert checkpoint["step"] == 3
    assert (
        main([*render_arguments(scene / "test", tmp_path, path, "--compile"), "--device", "cuda"])
        == 0
    )
