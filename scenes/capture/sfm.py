"""Structure from motion on photos of one camera.

    model = reconstruct(Path("photos"), names, Path("workspace"), matching="exhaustive")

COLMAP's library does the work, on the CPU.
"""

import itertools
import os
from pathlib import Path

import pycolmap

from machine.progress import Progress

# Pixels of the longer side in which features are sought; more of them cost time and add little
MATCHED_SIDE = 1280
SEQUENTIAL_OVERLAP = 12
PAIRS_PER_CALL = 64
SEED = 0
ATTEMPTS = 3  # at mapping, each from another seed, while most photos have not found their place


def reconstruct(
    image_dir: Path, names: list[str], workspace: Path, matching: str
) -> pycolmap.Reconstruction | None:
    """Cameras and sparse points of the largest consistent set of photos; None if no two photos
    match.

    matching: see `image_pairs`. All photos share one camera with one focal length and one radial
    distortion coefficient, both estimated, in pixels of the photos as they are. `names` must not
    contain spaces. Intermediate files go to `workspace`.
    """
    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value
    pycolmap.set_random_seed(SEED)
    database = workspace / "database.db"
    _extract(database, image_dir, names)
    _match(database, image_pairs(names, matching), workspace / "pairs.txt")
    found = []
    for seed in range(SEED, SEED + ATTEMPTS):
        found += _map(database, image_dir, workspace, seed, len(names))
        if any(2 * model.num_reg_images() > len(names) for model in found):
            break
    return max(found, key=lambda model: model.num_reg_images(), default=None)


def image_pairs(names: list[str], matching: str) -> list[tuple[str, str]]:
    """The pairs of photos to compare: all (`exhaustive`), or each photo with the next few and then
    with those at doubling distances (`sequential`), which suits a walk or a video and needs no
    vocabulary tree."""
    if matching == "exhaustive":
        return list(itertools.combinations(names, 2))
    steps = [*range(1, SEQUENTIAL_OVERLAP + 1)]
    while steps[-1] * 2 < len(names):
        steps.append(steps[-1] * 2)
    return [
        (first, second)
        for step in steps
        for first, second in zip(names, names[step:], strict=False)
    ]


def _extract(database: Path, image_dir: Path, names: list[str]) -> None:
    """Extracts SIFT features, a few photos per call, because COLMAP itself reports no progress."""
    reader = pycolmap.ImageReaderOptions(camera_model="SIMPLE_RADIAL")
    extraction = pycolmap.FeatureExtractionOptions(max_image_size=MATCHED_SIDE)
    with Progress(desc="features", total=len(names), unit="photo") as bar:
        for batch in _batches(names, 2 * (os.cpu_count() or 1)):
            pycolmap.extract_features(
                database,
                image_dir,
                batch,
                camera_mode=pycolmap.CameraMode.SINGLE,
                reader_options=reader,
                extraction_options=extraction,
                device=pycolmap.Device.cpu,
            )
            reader.existing_camera_id = 1  # created by the first call
            bar.update(len(batch))


def _match(database: Path, pairs: list[tuple[str, str]], list_path: Path) -> None:
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = SEED
    with Progress(desc="matching", total=len(pairs), unit="pair") as bar:
        for batch in _batches(pairs, PAIRS_PER_CALL):
            list_path.write_text("".join(f"{first} {second}\n" for first, second in batch))
            pairing = pycolmap.ImportedPairingOptions(match_list_path=list_path)
            pycolmap.match_image_pairs(
                database,
                pairing_options=pairing,
                verification_options=verification,
                device=pycolmap.Device.cpu,
            )
            bar.update(len(batch))


def _map(
    database: Path, image_dir: Path, workspace: Path, seed: int, photos: int
) -> list[pycolmap.Reconstruction]:
    """The consistent sets of photos that one attempt finds."""
    with Progress(desc="mapping", total=photos, unit="photo") as bar:
        options = pycolmap.IncrementalPipelineOptions(min_model_size=3, random_seed=seed)
        models = pycolmap.incremental_mapping(
            database,
            image_dir,
            workspace,
            options,
            initial_image_pair_callback=lambda: bar.update(2),
            next_image_callback=lambda: bar.update(1),
        )
    return list(models.values())


def _batches(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]
