"""A golden folder: the model with its synthetic weights, the poses and the expected arrays."""

import json
from pathlib import Path

import numpy as np
import torch

from data_util import list_poses, load_intrinsics, load_pose
from dataio import scene_geometry
from deep_voxels import Architecture, DeepVoxels
from losses import PatchDiscriminator
from tests.golden.synthetic_weights import synthetic_tensor

GOLDEN = Path(__file__).parent


class Case:
    """`GOLDEN/name`. The networks are plain and in evaluation mode."""

    def __init__(self, name: str):
        folder = GOLDEN / name
        self.config = json.loads((folder / "config.json").read_text())
        self.expected = np.load(folder / "golden.npz")
        shapes = json.loads((folder / "state_dict.json").read_text())
        architecture = Architecture(
            **{flag: self.config[flag] for flag in Architecture.__dataclass_fields__}
        )
        intrinsics = load_intrinsics(folder / "intrinsics.txt")
        geometry = scene_geometry(
            intrinsics,
            architecture.grid_dim,
            architecture.proj_sidelength,
            default_near_plane=0.5,
        )
        self.model = DeepVoxels(architecture, geometry).eval()
        self.model.load_state_dict(synthetic_state(shapes["model"]))
        self.discriminator = PatchDiscriminator().eval()
        self.discriminator.load_state_dict(synthetic_state(shapes["discriminator"]))
        poses = np.stack([load_pose(path) for path in list_poses(folder / "pose")])
        self.poses = torch.tensor(intrinsics.relative_to_grid(poses)).float()


def synthetic_state(shapes: dict) -> dict[str, torch.Tensor]:
    """The golden weights of a state dict of these names and shapes, without aliases."""
    return {
        name: torch.tensor(0)
        if name.endswith("num_batches_tracked")
        else torch.tensor(synthetic_tensor(name, entry["shape"]))
        for name, entry in shapes.items()
        if "alias_of" not in entry
    }
