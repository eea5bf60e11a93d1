"""What an error means to who runs a command: an exit code and one line."""

import errno
import re
import sys

from util import InputError

# What is said when there is no memory: by PyTorch's allocator, C++, oneDNN, threads and files,
# CUDA, cuBLAS or cuDNN, and by the system when it loads a library (one that it may not load is
# another matter).
NO_MEMORY = re.compile(
    r"DefaultCPUAllocator|bad_alloc|could not create a (primitive(?! descriptor)|memory)"
    r"|can't start new thread|Cannot allocate memory|CUDA error: out of memory|STATUS_ALLOC_FAILED"
    r"|failed to map segment from shared object(?!: Operation not permitted)"
)
# How CUDA says that the card, its driver or the connection to it failed, in the text of its error.
LOST_GPU = re.compile(
    r"CUDA error: (.*\b(device lost|launch failure|launch timed out|uncorrectable|hardware)\b.*"
    r"|no CUDA-capable device.*|CUDA-capable device\(s\) is/are busy.*|unknown error.*)"
)


def explain(error: Exception) -> tuple[int, str]:
    """The exit code and the message of an error. Raises a bug again."""
    if is_out_of_memory(error):
        lines = str(error).strip().splitlines()
        # numpy explains at length how to install it
        reason = next(filter(NO_MEMORY.search, lines), str(error))
        reason = reason.rpartition("DefaultCPUAllocator: ")[-1].strip()
        return 1, f"out of memory: {reason or 'no more could be had'}"
    if isinstance(error, RuntimeError) and (failure := LOST_GPU.search(str(error))):
        return 1, f"the GPU failed: {failure[1]}; what was saved before is intact"
    if isinstance(error, InputError):
        return 2, str(error)
    if isinstance(error, OSError):
        # two of a copy
        files = " to ".join(str(name) for name in (error.filename, error.filename2) if name)
        return 2, f"{files}: {error.strerror}" if files and error.strerror else str(error)
    raise error


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, the system, OpenCV or PyTorch got no memory. Most of PyTorch's libraries say
    so in a plain RuntimeError, the system in an error without a number if it loads a library."""
    # not imported here: commands start faster
    torch = sys.modules.get("torch")
    cv2 = sys.modules.get("cv2")
    if isinstance(error, MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    if cv2 is not None and isinstance(error, cv2.error):
        return getattr(error, "code", None) == cv2.Error.StsNoMem
    kinds = (RuntimeError, ImportError, OSError)
    return isinstance(error, kinds) and NO_MEMORY.search(str(error)) is not None
