"""Registers the method `deepvoxels` in NerfBaselines, which imports this file if told to:

    export NERFBASELINES_REGISTER=$PWD/integrations/nerfbaselines/deepvoxels_spec.py
    export NERFBASELINES_BACKEND=python
    nerfbaselines train --method deepvoxels --data DATA --output OUT

Run as a script, it checks that all packages are there and prints these two lines.
"""

import sys
from importlib.util import find_spec
from pathlib import Path

SPEC = Path(__file__).resolve()
ROOT = SPEC.parents[2]
REQUIREMENTS = SPEC.with_name("requirements.txt").relative_to(ROOT)
SPEC_CONTENT = {
    "id": "deepvoxels",
    "method_class": "integrations.nerfbaselines.method:DeepVoxelsMethod",
    "metadata": {
        "name": "DeepVoxels",
        "description": "Learns a persistent 3D grid of features from a 2D re-rendering loss.",
        "paper_title": "DeepVoxels: Learning Persistent 3D Feature Embeddings",
        "paper_authors": [
            "Vincent Sitzmann",
            "Justus Thies",
            "Felix Heide",
            "Matthias Nießner",
            "Gordon Wetzstein",
            "Michael Zollhöfer",
        ],
        "paper_link": "https://arxiv.org/abs/1812.01024",
        "licenses": [{"name": "MIT"}],
    },
    "presets": {
        size: {"@description": f"--size {size} --recipe fast", "size": size, "recipe": "fast"}
        for size in ("small", "medium", "large")
    },
}


def missing_packages() -> str | None:
    """One line that says how to install what is missing; None if all is there."""
    for module in ("nerfbaselines", "click", "plyfile"):
        if find_spec(module) is None:
            return f"{module} is not installed (pip install --no-deps -r {REQUIREMENTS}, in {ROOT})"
    for module in ("torch", "cv2", "jaxtyping"):
        if find_spec(module) is None:
            return (
                f"{module} is not installed where NerfBaselines is; install both into one "
                f"environment (pip install -r requirements.txt, in {ROOT})"
            )
    return None


def main() -> int:
    """The script: returns its exit code."""
    if missing := missing_packages():
        print(f"{SPEC.name}: error: {missing}", file=sys.stderr)
        return 2
    print(f"export NERFBASELINES_REGISTER={SPEC}\nexport NERFBASELINES_BACKEND=python")
    return 0


def add_method() -> None:
    """Registers the method. Where packages are missing, one line says so, and NerfBaselines goes on
    without it."""
    if missing := missing_packages():
        print(f"{SPEC.name}: error: {missing}", file=sys.stderr)
        return
    from nerfbaselines import register

    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))  # where `method_class` is found
    register(SPEC_CONTENT)


if __name__ == "__main__":
    sys.exit(main())
add_method()
