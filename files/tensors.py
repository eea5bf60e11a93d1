"""Files of tensors and plain values as `torch.save` writes them, read as untrusted files.

    with open_file(path) as file:
        content = load_tensors(file, path)

`torch.load(weights_only=True)` executes nothing. But it also builds sparse and quantized tensors
and tensors of claimed sizes, lists that hold themselves and dicts whose methods are replaced, and
it unpacks compressed records. Here nothing passes but dicts, lists, tuples, numbers, text and dense
tensors that the file really holds.
"""

import hashlib
import io
import os
import pickletools
import struct
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from util import InputError, usable_cores

# A checkpoint of the paper's model holds about 5,000 values, in some ten times as many opcodes.
MAX_VALUES = 1_000_000
MAX_OPCODES = 1_000_000
MAX_DEPTH = 20
# Python hashes nested tuples without a limit of depth. This many levels fit its stack.
MAX_TUPLES = 20_000
# The original's checkpoints hold most tensors under two names.
MAX_BYTES_PER_BYTE = 4
WORTH_A_THREAD = 1 << 16  # bytes: the digest of less is there before a thread has been told
SCALAR_TYPES = (bool, int, float, str, type(None))
DTYPES = {
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
}

ZIP_START = b"PK\x03\x04"
END = struct.Struct("<4s4H2LH")  # of an archive: signature, ..., directory's bytes, its offset, ...
END64 = struct.Struct("<4sQ2H2L4Q")
LOCATOR64 = struct.Struct("<4sLQL")


def load_tensors(file: io.BufferedIOBase, path: Path):
    """The content of an open file, on the CPU. Its dicts, lists and tensors are of the plain types.

    Raises `InputError` that names `path` for anything else. Takes at most four times the memory of
    the file's size.
    """
    size = os.fstat(file.fileno()).st_size
    try:
        for pickled in _pickles(file, size):
            _refuse_deep(pickled)
        file.seek(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            content = torch.load(file, map_location="cpu", weights_only=True)
        return _plain(content, MAX_BYTES_PER_BYTE * size)
    except Exception as error:  # torch raises a dozen types
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path}: is not a checkpoint that can be read ({reason})") from None


def _pickles(file: io.BufferedIOBase, size: int):
    """Files at the start of each pickle that `torch.load` will read. Raises ValueError for an
    archive that is not one of `torch.save`."""
    if file.read(len(ZIP_START)) != ZIP_START:  # of PyTorch before 1.6
        file.seek(0)
        for _ in range(5):  # magic number, protocol, system, content, names of storages
            yield file
        return
    _refuse_other_directories(file, size)
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
        if not stored or sum(record.file_size for record in records) > size:
            raise ValueError("it holds compressed records")
        for record in records:
            if record.filename.endswith("data.pkl"):
                yield io.BytesIO(archive.read(record))  # an archive is slow to read byte by byte


def _refuse_other_directories(file: io.BufferedIOBase, size: int) -> None:
    """Raises ValueError unless the archive's directory lies right before its end: then Python and
    PyTorch, whose rules to find it differ, read the same one."""
    length = END64.size + LOCATOR64.size + END.size
    file.seek(max(size - length, 0))
    tail = file.read(length).rjust(length, b"\0")
    end64 = END64.unpack_from(tail)
    locator = LOCATOR64.unpack_from(tail, END64.size)
    end = END.unpack_from(tail, length - END.size)
    directory, offset = end[5:7]
    end_of_directory = size - END.size
    if locator[0] == b"PK\x06\x07":
        directory, offset = end64[8:10]
        end_of_directory = size - length
        if end64[0] != b"PK\x06\x06" or locator[2] != end_of_directory:
            raise ValueError("its archive was not written by torch.save")
    if end[0] != b"PK\x05\x06" or end[7] or offset + directory != end_of_directory:
        raise ValueError("its archive was not written by torch.save")


def _refuse_deep(pickled: io.BufferedIOBase) -> None:
    """Raises ValueError if a pickle takes long to read, or holds so many tuples that, one in the
    other, they could overflow the stack."""
    tuples = 0
    for count, (code, _, _) in enumerate(pickletools.genops(pickled)):
        tuples += code.name.startswith("TUPLE")
        if tuples > MAX_TUPLES or count > MAX_OPCODES:
            raise ValueError("it nests too many values")


def _plain(content, max_bytes: int):
    """A copy of nested values that shares the tensors' memory. Raises TypeError for a type that
    checkpoints do not hold, ValueError for too much of it."""
    values_left = MAX_VALUES
    bytes_left = max_bytes

    def tensor(value: Tensor) -> Tensor:
        nonlocal bytes_left
        bare = Tensor.detach(value)
        if bare.layout != torch.strided or bare.device.type != "cpu" or bare.dtype not in DTYPES:
            raise TypeError(f"it holds a tensor of {bare.layout} {bare.dtype} on {bare.device}")
        size = bare.numel() * bare.element_size()
        bytes_left -= size
        if size > bare.untyped_storage().nbytes() or bytes_left < 0:
            raise ValueError("it has a tensor that is larger than its storage")
        return bare.resolve_neg()

    def copy(value, depth: int):
        nonlocal values_left
        values_left -= 1
        if values_left < 0 or depth > MAX_DEPTH:
            raise ValueError("it nests too many values")
        kind = type(value)
        if kind in SCALAR_TYPES:
            return _short(value)
        if kind in (Tensor, nn.Parameter):
            return tensor(value)
        if kind in (dict, OrderedDict):
            pairs = kind.items(value)
            return kind((copy(key, depth + 1), copy(entry, depth + 1)) for key, entry in pairs)
        if kind in (list, tuple):
            return kind(copy(entry, depth + 1) for entry in value)
        raise TypeError(f"it holds a {kind.__name__}")

    return copy(content, 0)


def _short(value: bool | int | float | str | None) -> bool | int | float | str | None:
    """The value. Raises ValueError for a whole number of more than 64 bits."""
    if isinstance(value, int) and value.bit_length() > 64:
        raise ValueError("it holds a number of more than 64 bits")
    return value


def checksum(content, method: str = "threads") -> str:
    """SHA-256 of the types, names and values of nested dicts, lists, tensors and scalars.

    method: `threads` computes a digest for each tensor, as it lies in memory, on all cores, then
    one of these. Any other value is that of checkpoints before it, from one pass over all.
    """
    digest = hashlib.sha256()
    if method != "threads":
        for part in _parts(content, _contiguous_bytes):
            digest.update(part)
        return digest.hexdigest()
    with ThreadPoolExecutor(usable_cores()) as pool:

        def tensor_digest(tensor: Tensor) -> bytes | Future:
            if tensor.nbytes < WORTH_A_THREAD:
                return _tensor_digest(tensor)
            return pool.submit(_tensor_digest, tensor)

        for part in list(_parts(content, tensor_digest)):
            digest.update(part.result() if isinstance(part, Future) else part)
    return f"threads:{digest.hexdigest()}"


def _parts(value, of_tensor) -> Iterator[object]:
    """What a checksum covers, in order; of each tensor its type and shape, then `of_tensor`."""
    yield f"{type(value).__name__}:".encode()
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _parts(key, of_tensor)
            yield from _parts(entry, of_tensor)
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _parts(entry, of_tensor)
    elif isinstance(value, Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        yield of_tensor(value)
    else:
        yield repr(value).encode("utf-8", "surrogatepass")
    yield b";"


def _contiguous_bytes(tensor: Tensor):
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()


def _tensor_digest(tensor: Tensor) -> bytes:
    """A digest of a tensor's values in the order in which they lie in memory, and of that order: a
    copy in another order would take longer than the digest."""
    order = sorted(range(tensor.ndim), key=lambda dim: -tensor.stride(dim))
    values = _contiguous_bytes(tensor.permute(order))
    return hashlib.sha256(f"{order}".encode() + hashlib.sha256(values).digest()).digest()
