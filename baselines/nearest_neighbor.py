"""Nearest neighbour (paper, Table 1): the training image whose camera looks most nearly in the
target's direction.

    python run_deepvoxels.py --train_test test --model nearest_neighbor --data_root SCENE/test
        --train_root SCENE/train
        --logging_root LOGS

There is nothing to train. The distance is the angle between viewing directions, as in the paper
(section 3.1).
"""

from jaxtyping import Float
from torch import Tensor, nn

from deep_voxels import Architecture, Rendering
from projection import SceneGeometry


class NearestNeighbor(nn.Module):
    """Shows the source view, which the caller chooses."""

    def __init__(self, architecture: Architecture, geometry: SceneGeometry):
        super().__init__()

    def forward(
        self,
        source_image: Float[Tensor, "v 3 s s"],
        source_cam2world: Float[Tensor, "v 4 4"],
        target_cam2world: Float[Tensor, "v 4 4"],
    ) -> tuple[Rendering, None]:
        """Images in [-1/2, 1/2]."""
        return Rendering(source_image, None), None
