"""Hostile checkpoints by what is wrong with them: functions that write one, given a path and the
content of a good checkpoint."""

import io
import os
import struct
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import torch

from deep_voxels import Architecture

DEEP = 400_000  # tuples, one in the other
BOMB = 300 << 20  # bytes that a few kilobytes would unpack to


def save(path: Path, content) -> None:
    torch.save(content, path)


def with_pickle(path: Path, pickled: bytes) -> None:
    """An archive of `torch.save` with another pickle in it."""
    file = io.BytesIO()
    torch.save({}, file)
    with zipfile.ZipFile(file) as good, zipfile.ZipFile(path, "w") as bad:
        for record in good.infolist():
            content = good.read(record)
            bad.writestr(record, pickled if record.filename.endswith("data.pkl") else content)


def unsigned(good: dict) -> dict:
    """A checkpoint without a checksum, as the original's: what is changed in it is not found by
    that."""
    return {k: v for k, v in good.items() if k not in ("checksum", "format_version")}


def changed(**parts):
    """The good checkpoint with other parts."""
    return lambda path, good: save(path, {**good, **parts})


def with_state(**tensors):
    """The good checkpoint with other tensors in its model."""

    def write(path, good):
        names = {name.replace("__", "."): value for name, value in tensors.items()}
        save(path, {**good, "model": {**good["model"], **names}})

    return write


def with_options(**options):
    return lambda path, good: save(path, {**good, "options": {**good["options"], **options}})


def held_out(**changes) -> dict:
    """What a checkpoint records of a measurement, with the changes first."""
    good = {"step": 1, "psnr": 20.0, "split": "test", "views": 8, "fingerprint": "0" * 64}
    return {**changes, **{name: good[name] for name in good.keys() - changes.keys()}}


def with_value(make):
    """The good checkpoint with what `make` returns among its options."""
    return lambda path, good: save(path, {**good, "options": {**good["options"], "x": make()}})


def holding_itself(kind):
    value = kind()
    value.append(value) if kind is list else value.update(x=value)
    return value


def doubled(times: int):
    value = [0]
    for _ in range(times):
        value = [value, value]
    return value


def nested(depth: int):
    return [nested(depth - 1)] if depth else 0


def bomb(path: Path, good: dict, hidden: bool = False) -> None:
    """Compressed records. hidden: behind a second directory that Python's reader finds first."""
    file = io.BytesIO()
    torch.save({"model": {"deepvoxels": torch.zeros(BOMB // 4)}}, file)
    with (
        zipfile.ZipFile(file) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for record in source.infolist():
            target.writestr(record.filename, source.read(record))
        start = target.start_dir
    if hidden:
        content = path.read_bytes()
        (start,) = struct.unpack("<L", content[-6:-2])
        directory = content[start:-22]
        end = content[-22:]
        harmless = bytearray(directory)
        position = 0
        while position < len(harmless):
            harmless[position + 10 : position + 12] = bytes(2)  # stored
            harmless[position + 24 : position + 28] = harmless[position + 20 : position + 24]
            position += 46 + sum(struct.unpack_from("<3H", harmless, position + 28))
        path.write_bytes(content[:start] + directory + bytes(harmless) + end)


def of_one_storage(path: Path, good: dict) -> None:
    """Tensors that hold 500 times what the file does."""
    values = torch.zeros(1 << 18)
    save(path, {"model": {str(index): values for index in range(500)}})


def claimed_numbers(path: Path, good: dict) -> None:
    """A storage that is said to be larger than its record."""
    file = io.BytesIO()
    torch.save({"model": {"deepvoxels": torch.arange(16.0)}}, file)
    with zipfile.ZipFile(file) as archive:
        pickled = archive.read("archive/data.pkl")
    larger = pickled.replace(b"K\x10tq", b"J\x00\x00\x10\x00tq").replace(b"K\x10\x85", b"K\xff\x85")
    assert larger != pickled
    with zipfile.ZipFile(file) as source, zipfile.ZipFile(path, "w") as target:
        for record in source.infolist():
            content = source.read(record)
            target.writestr(record, larger if record.filename.endswith("data.pkl") else content)


def legacy_claim(path: Path, good: dict) -> None:
    """The format before PyTorch 1.6 with a storage of 40 GB, of which the file holds nothing."""
    file = io.BytesIO()
    torch.save(
        {"model": {"deepvoxels": torch.arange(16.0)}}, file, _use_new_zipfile_serialization=False
    )
    content = file.getvalue()
    larger = content.replace(b"K\x10N", b"\x8a\x05\x00\xe4\x0b\x54\x02N")
    assert larger != content
    path.write_bytes(larger)


def of_architecture(*sizes, **more):
    """A baseline that claims this architecture and holds next to nothing."""
    flags = dict(zip(Architecture.__dataclass_fields__, (*sizes, False), strict=True))
    options = {"model": "pix2pix", **flags, **more}
    return lambda path, good: save(path, {"model": {"a": torch.zeros(1)}, "options": options})


def with_optimizer(change):
    """The good checkpoint, its optimizer's state changed by a function."""

    def write(path, good):
        state = good["model_optimizer"]
        copy = {
            "state": {index: dict(entry) for index, entry in state["state"].items()},
            "param_groups": [dict(group) for group in state["param_groups"]],
        }
        change(copy)
        save(path, {**good, "model_optimizer": copy})

    return write


PICKLES = {
    "nothing": lambda path, good: path.write_bytes(b""),
    "text": lambda path, good: path.write_bytes(b"not a checkpoint\n" * 100),
    "cut off": lambda path, good: (save(path, good), os.truncate(path, 5000)),
    "a list that holds itself": with_value(lambda: holding_itself(list)),
    "a dict that holds itself": with_value(lambda: holding_itself(dict)),
    "2^40 values": with_value(lambda: doubled(40)),
    "a million values": with_value(lambda: [0] * 1_100_000),
    "a deep list": with_value(lambda: nested(100)),
    "a deep key": lambda path, good: with_pickle(
        path, b"\x80\x02}q\x00)" + b"\x85" * DEEP + b"K\x01s."
    ),
    "other methods": lambda path, good: with_pickle(
        path,
        b"\x80\x02}(X\x05\0\0\0modelccollections\nOrderedDict\n)R}X\x05\0\0\0itemsK\x01sbu.",
    ),
    "a set": with_value(lambda: {1}),
    "a counter": with_value(lambda: Counter("ab")),
    "bytes": with_value(lambda: bytearray(3)),
    "a complex number": with_value(lambda: 1j),
    "a device": with_value(lambda: torch.device("cpu")),
    "a number of 255 bytes": with_value(lambda: 1 << 2000),
    "code": lambda path, good: with_pickle(path, b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."),
    "compressed": bomb,
    "compressed, hidden": lambda path, good: bomb(path, good, hidden=True),
    "a tuple": lambda path, good: with_pickle(path, b"\x80\x02)."),
    "a list of states": lambda path, good: save(path, [good]),
    "no model": lambda path, good: save(path, {}),
}


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # PyTorch warns of these kinds
    SPARSE = torch.sparse_coo_tensor([[0]] * 5, [1.0], (1, 1024, 512, 512, 512))
    QUANTIZED = torch.quantize_per_tensor(torch.zeros(1, 4, 8, 8, 8), 0.1, 0, torch.qint8)

TENSORS = {
    "claims in an old file": legacy_claim,
    "claims in an archive": claimed_numbers,
    "one storage for all": of_one_storage,
    "stretched": with_state(deepvoxels=torch.zeros(1).expand(1, 1024, 512, 512, 512)),
    "sparse": with_state(deepvoxels=torch.zeros(1, 4, 8, 8, 8).to_sparse()),
    "sparse and huge": with_state(deepvoxels=SPARSE),
    "on no device": with_state(deepvoxels=torch.zeros(1, 4, 8, 8, 8, device="meta")),
    "complex": with_state(deepvoxels=torch.zeros(1, 4, 8, 8, 8, dtype=torch.complex64)),
    "quantized": with_state(deepvoxels=QUANTIZED),
    "integers": with_state(deepvoxels=torch.zeros(1, 4, 8, 8, 8, dtype=torch.int64)),
    "not finite": with_state(deepvoxels=torch.full((1, 4, 8, 8, 8), torch.nan)),
}
VERSIONS = {
    f"version {version}": changed(format_version=version, checksum=None)
    for version in (2, 0, -1, "1", 1.0, True, None, [1], {}, torch.ones(2), torch.ones(1))
} | {
    "another checksum": changed(checksum="0" * 64),
    "an unknown checksum": changed(checksum="md5:00"),
    "a number as checksum": changed(checksum=1),
    "tensors as checksum": changed(checksum=torch.ones(2)),
    "no checksum": changed(format_version=1),
}
CLAIMS = {
    f"a volume of {shape}": with_state(deepvoxels=torch.zeros(shape))
    for shape in [
        (1, 1024, 1, 1, 4),
        (1, 1, 1, 1, 512),
        (1, 4, 0, 0, 0),
        (1, 0, 8, 8, 8),
        (1, 4, 6, 6, 6),
        (2, 4, 8, 8, 8),
        (1, 5, 8, 8, 8),
        (4, 8, 8, 8),
        (),
    ]
} | {
    "names of a deep network": with_state(
        **{f"feature_extractor.net.1.unet_block.model.{'1.model.' * 30_000}": torch.zeros(1)}
    ),
    "many halvings": with_state(
        **{f"feature_extractor.net.0.downs.{index}.x": torch.zeros(1) for index in range(20_000)}
    ),
    "a long name": with_state(**{"x" * 1_000_000: torch.zeros(1)}),
    "channels of 0": with_state(
        feature_extractor__net__0__downs__0__net__1__weight=torch.zeros(0, 3, 3, 3)
    ),
    "no name": with_state(**{"": torch.zeros(1)}),
    "a baseline's largest": of_architecture(1024, 1024, 512, 1024, 1024),
    "a baseline beyond all": of_architecture(2**40, 2**20, 2**30, 2**30, 2**30),
    "a baseline of nothing": of_architecture(0, 0, 0, 0, 0),
    "a baseline of less": of_architecture(-64, -64, -8, -4, -4),
    "a baseline of text": of_architecture("64", "16", "8", "4", "4"),
}
STATES = {
    f"{part}: {value!r:.30}": changed(**{part: value})
    for part, values in {
        "model": ([], {"deepvoxels": 1}, {1: torch.zeros(1)}, torch.zeros(2)),
        "discriminator": ([1], {"a": "b"}, 1),
        "average": ([1], {"a": torch.zeros(1)}, {"a": None}),
        "step": (-1, "x", 1.5, True, 2**70, None, torch.ones(2)),
        "epoch": (-1, [], torch.ones(2)),
        "setbacks": (-1, 10**6, "x", [], torch.ones(2)),
        "seconds": (float("nan"), float("inf"), -1.0, "x"),
        "skipped_in_a_row": (-1, "x", []),
        "ranks": ({}, 0.5),
        "best": (None, [], {}, {1: 2}, held_out(psnr=float("nan")), held_out(views="x" * 9)),
        "worse_in_a_row": (-1, None, 2**70),
        "chosen_by": ("test", {"psnr": 1.0}, held_out(step=None), held_out(split=torch.ones(2))),
        "rng": (1, [], None),
        "scene": (1, None, torch.ones(2)),
        "intrinsics": (1, [], {"scale": torch.ones(2)}),
        "optimizers_left_out": (1, "x", torch.ones(2)),
        "model_optimizer": (1, [], torch.ones(2)),
    }.items()
    for value in values
}
OPTIONS = {
    "a list": changed(options=[1]),
    "text": changed(options="lr"),
    "names that are numbers": changed(options={1: 2}),
    "a tensor": with_value(lambda: torch.ones(2)),
    "no number": with_options(near_plane=float("nan")),
    "no end": with_options(near_plane=float("inf")),
    "a model that is a list": with_options(model=[]),
    "an unknown model": with_options(model="x" * 1000),
    "a model that is not trained": with_options(model="nearest_neighbor"),
}
FOR_ALL = {
    f"{group}, {name}": write
    for group, files in {
        "pickles": PICKLES,
        "tensors": TENSORS,
        "versions": VERSIONS,
        "claims": CLAIMS,
        "states": STATES,
        "options": OPTIONS,
    }.items()
    for name, write in files.items()
}
# What --resume alone reads.
FOR_RESUME = {
    f"optimizer, {name}": with_optimizer(change)
    for name, change in {
        "no moments": lambda state: state.update(state={}),
        "no groups": lambda state: state.update(param_groups=[]),
        "groups of text": lambda state: state.update(param_groups="ab"),
        "other parameters": lambda state: state["param_groups"][0].update(params=[0]),
        "an unknown parameter": lambda state: state["state"].update({10**6: {}}),
        "moments that are text": lambda state: state["state"][0].update(exp_avg="x"),
        "moments of another shape": lambda state: state["state"][0].update(exp_avg=torch.ones(1)),
        "moments of another type": lambda state: state["state"][0].update(
            exp_avg=state["state"][0]["exp_avg"].long()
        ),
        "moments that are not finite": lambda state: state["state"][0].update(
            exp_avg=state["state"][0]["exp_avg"] * torch.nan
        ),
        "negative squares": lambda state: state["state"][0].update(
            exp_avg_sq=state["state"][0]["exp_avg_sq"] - 1
        ),
        "steps that are many": lambda state: state["state"][0].update(step=torch.ones(5)),
        "negative steps": lambda state: state["state"][0].update(step=torch.tensor(-1.0)),
    }.items()
} | {
    "random generators, none": changed(rng={}),
    "random generators, text": changed(rng={"cpu": "x", "cuda": []}),
    "random generators, too short": changed(rng={"cpu": torch.zeros(3, dtype=torch.uint8)}),
    "random generators, numbers": changed(rng={"cpu": torch.zeros(5056), "cuda": 1}),
    "options, text for a number": with_options(lr="x"),
    "options, negative": with_options(num_trgt=-1),
    "options, a list": with_options(lr=[1]),
    "options, a line": with_options(background="white\n--seed 1"),
    "options, a size beyond all": with_options(num_trgt=2**70),
}
