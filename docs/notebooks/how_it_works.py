# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # How it works, to try
#
# DeepVoxels learns a scene from photos and draws it from new sides. Between the two lies a
# memory: a grid of voxels, each of which holds a few numbers, its *features*. This notebook
# follows the photos into the grid (parts 1 to 3) and a new image out of it (part 4). Then you
# train a model yourself (part 5).
#
# Each part has one idea, one picture with sliders, and one function that you write. A check says
# whether it is right. You need Python and a little PyTorch. You need not have read the paper.
# [How it works](../how_it_works.md) has the same steps with the program's own code.
#
# On a web page the pictures stand still; in the notebook the sliders move them. The notebook is
# kept as text. In a clone of the repository, after `pip install jupytext ipywidgets jupyterlab`,
# one command makes it a file for Jupyter, VS Code or Colab:
#
#     python -m jupytext --to ipynb docs/notebooks/how_it_works.py
#
# The next cell finds the repository. Where there is none, as in a hosted notebook, it clones it
# and installs what is needed.

# %%
import subprocess
import sys
from pathlib import Path

REPOSITORY = "https://REPOSITORY_URL"

here = Path.cwd()
folders = [here, *here.parents, here / "deepvoxels"]
root = next((folder for folder in folders if (folder / "deep_voxels.py").is_file()), None)
if root is None:
    root = here / "deepvoxels"
    needed = root / "docs" / "notebooks" / "requirements.txt"
    print(f"No clone of the repository lies here: {REPOSITORY} is cloned into {root}")
    if subprocess.run(["git", "clone", "-q", "--depth", "1", REPOSITORY, root]).returncode:
        raise SystemExit(f"{REPOSITORY} could not be cloned: run this in a clone of the repository")
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-r", needed], check=True)
sys.path.insert(0, str(root))

# %% [markdown]
# ## The scene
#
# `example/lego.pth` is a model that has learned a Lego bulldozer (NeRF-synthetic's Lego, by
# Heinzelnisse, CC BY-NC). Its grid has 32 × 32 × 32 voxels with 8 features each. `example/lego`
# has the cameras of the 100 photos that it learned from, but not the photos. So where this
# notebook says *photo*, it shows what the model itself draws for that camera.

# %%
import torch

from docs.notebooks.checks import check, score
from docs.notebooks.lesson import Lesson, Sliders

lesson = Lesson(root)

# %% [markdown]
# ## 1. Where is a voxel in a photo?
#
# Every voxel has a place $x$ in the world. A camera has a place and a direction: a rotation $R$
# and a translation $t$ turn world coordinates into the camera's own, in which $z$ points forward.
# A *pinhole camera* then divides by the depth: what is twice as far away looks half as large.
#
# $$
# \begin{pmatrix} x_c \\ y_c \\ d \end{pmatrix} = R\,x + t,
# \qquad u = f\,\frac{x_c}{d} + c_x, \qquad v = f\,\frac{y_c}{d} + c_y
# $$
#
# Here $d$ is the depth; $f$ is the focal length and $(c_x, c_y)$ the middle of the image, both in
# pixels. $u$ counts pixels to the right and $v$ downwards.
#
# **Move** the voxel along the grid's three axes. On the left you see one layer of the grid from
# above; similar colours are similar features; pale voxels are empty or hidden inside. The arrow
# shows from where the camera looks. On the right is the photo.

# %%
voxel = Sliders(lesson.draw_voxel, x=(16, 32), y=(16, 32), z=(20, 32))
voxel


# %% [markdown]
# **Write** the camera. `points` has one voxel in each row. Replace the three `...`.


# %% tags=["exercise"]
def world2image(points, rotation, translation, camera):
    """World points (n, 3) to u, v and depth (n, 3)."""
    focal, cx, cy = camera
    x, y, depth = ...  # R x + t; a tensor (3, n) can be taken apart like this
    u = ...
    v = ...
    return torch.stack([u, v, depth], dim=1)


# %%
check(world2image)

# %% [markdown]
# ## 2. Lifting: from a photo into the grid
#
# A network first turns the photo into a *feature map*: an image of 64 × 64 pixels, with 8 numbers
# in each in place of a colour. Now every voxel looks up its own pixel and takes the features
# there. This is called *lifting*.
#
# A photo does not know how far away things are. All voxels on the line from the camera through
# one pixel take the same features: in front of the object, on it, behind it. The picture shows it
# with the photo's plain colours in place of features: the object is smeared along the camera's
# direction.
#
# **Move** the view, and watch the smear turn with the camera. Gray voxels are outside the photo.

# %%
lifted = Sliders(lesson.draw_lifted, view=(2, 100))
lifted


# %% [markdown]
# **Write** the lookup. A voxel rarely falls on the middle of a pixel, so it takes a mix of the
# four pixels around $(u, v)$, the nearer the more (*bilinear interpolation*). A voxel that the
# photo does not show takes 0: one behind the camera, or one whose rounded $(u, v)$ is no pixel of
# the map. `features` is indexed [feature, row, column].


# %% tags=["exercise"]
def lift(features, u, v, depth):
    """A feature map (f, m, m) and n places to what each voxel takes (f, n)."""
    last = features.shape[-1] - 1
    shown = ...  # True where depth > 0, and u and v, rounded, are from 0 to `last`

    u = u.clamp(0, last)
    v = v.clamp(0, last)
    left = u.long().clamp(max=last - 1)  # the column of the two pixels on the left
    top = v.long().clamp(max=last - 1)  # the row of the two upper pixels
    across = u - left  # from 0 to 1
    down = v - top
    upper = (1 - across) * features[:, top, left] + across * features[:, top, left + 1]
    lower = ...  # the same, one row further down
    mixed = ...  # `upper` and `lower`, mixed by `down`
    return mixed * shown


# %%
check(lift)

# %% [markdown]
# ## 3. The memory decides what to keep
#
# One photo smears. Many photos from all sides agree only where the object really is. So the grid
# must collect what photos agree on. It does so as a *gated recurrent unit* (GRU): for every voxel
# a network computes a *gate* $Z$ between 0 and 1, from the lifted photo $X$ and the memory $H$,
# and a *proposal* $S$, the new features. The gate mixes:
#
# $$
# Z = \sigma(W X + U H + b), \qquad \sigma(a) = \frac{1}{1 + e^{-a}}, \qquad
# H_\text{new} = (1 - Z)\,H + Z\,S
# $$
#
# $W$, $U$ and $b$ are learned ($W$ and $U$ are 3D convolutions). $Z = 0$ keeps the memory, $Z =
# 1$ replaces it.
#
# **Move** the view and the height. The middle picture is the gate, the right one how far the
# features moved. Read the scale beside the gate: after training it is nearly closed. One more
# photo changes little.

# %%
gates = Sliders(lesson.draw_gates, view=(2, 100), height=(20, 32))
gates


# %% [markdown]
# **Write** the gate. `sums` is $W X + U H + b$, one number for each voxel.


# %% tags=["exercise"]
def update_memory(sums, memory, proposal):
    """Sums (1, d, d, d), memory and proposal (f, d, d, d) to the new memory (f, d, d, d)."""
    gate = ...
    return ...


# %%
check(update_memory)

# %% [markdown]
# ## 4. What hides what
#
# Now a new image. Through each of its pixels goes a ray into the grid. The program reads the
# grid's features at 64 depths on every ray, the *depth planes*. But which of them does the camera
# see? What is in front hides what is behind. A network gives each of the 64 places a *visibility*
# $w_k$; on one ray they sum to 1. Then the ray becomes one feature vector, the *collapse*: the
# mean of visibility times feature over the $K = 64$ planes.
#
# $$
# \text{feature of the ray} = \frac{1}{K} \sum_{k=1}^{K} w_k\, x_k, \qquad
# \text{depth} = \sum_{k=1}^{K} w_k\, z_k
# $$
#
# A last network draws the image from the rays' features. Nobody told the model any depth; it
# follows from what hides what.
#
# **Move** the depth plane from front to back (0 to 63), and see the object pass through it. Then
# move the ray (column and row) onto the bulldozer's edge, and into the white background. There
# any depth is as good as another.

# %%
ray = Sliders(lesson.draw_ray, column=(32, 64), row=(32, 64), plane=(20, 64))
ray


# %% [markdown]
# **Write** the collapse. (The paper writes a sum, its code takes the mean; trained models expect
# the mean.)


# %% tags=["exercise"]
def collapse(features, visibility):
    """Features (f, depth, m, m) and visibility (depth, m, m) to a feature map (f, m, m)."""
    return ...


# %%
check(collapse)

# %%
score()

# %% [markdown]
# Solutions are in `docs/notebooks/solutions.py`. The program's own functions are `world2image`
# and `lift` in `projection.py`, `IntegrationNet.forward` and `collapse` in `custom_layers.py`;
# yours give the same numbers.

# %% [markdown]
# ## 5. Train your own
#
# Training starts with an empty memory and networks that know nothing. Each step puts one photo into
# the memory, draws two other views from it, and compares them with their photos. The error flows
# back through parts 4 to 1, and each network changes a little. That is all it learns from.
#
# The next cell writes 100 photos of 64 pixels, of which every fifth is held out. The command after
# it trains for 200 steps by the *fast recipe* ([Learn faster](../quickstart.md#learn-faster)), and
# the last one draws the held-out views. PSNR says how near they come to their photos, in decibels:
# 6 more halve the error.

# %%
photos = root / "demo" / "notebook" / "lego"
logs = root / "demo" / "notebook" / "logs"
lesson.write_photos(photos)

# %% tags=["training"]
# !{sys.executable} "{root}/run_deepvoxels.py" --train_test train \
#     --data_root "{photos}/train" --logging_root "{logs}" \
#     --size small --recipe fast --max_steps 200

# %% tags=["training"]
# !{sys.executable} "{root}/run_deepvoxels.py" --train_test test \
#     --data_root "{photos}/test" --logging_root "{logs}" --checkpoint latest

# %% [markdown]
# **The bar: 21 dB after one minute of training.** These commands, as they stand, reached 21.40 dB,
# where the training took 64 s. Change the flags and beat it in the same time:
#
# - `--grid_dim 32`: finer voxels. Do they pay in one minute?
# - `--lr 0.002`, `--max_steps 400`: faster or longer.
# - `--no_occlusion_net`: without part 4. What is lost, and where do you see it?
# - `--sampling_pattern skip_9`: every tenth photo alone.
#
# On the true photos of Lego at 64 pixels the same 200 steps reach 21.35 dB, after 69 s on 2 CPU
# cores ([measured here](../performance.md#the-whole-recipe)). They belong to NeRF-synthetic and
# are not in the repository. If you have them in a folder `nerf_lego`, run this in the repository:
#
#     python -m scenes.nerf_synthetic nerf_lego lego256 --sidelength 256
#     python run_deepvoxels.py --train_test train --data_root lego256/train --logging_root logs64 \
#         --size small --recipe fast --max_steps 200
#     python run_deepvoxels.py --train_test test --data_root lego256/test --logging_root logs64 \
#         --checkpoint latest
