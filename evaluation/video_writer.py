"""A video, encoded by ffmpeg while its frames come: whole when it appears under its name, or an
error that names it."""

import subprocess
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

FRAMES_PER_SECOND = 25.0


class VideoWriter:
    """Writes an MP4 file; `with VideoWriter(path) as video: video.add(frame)`.

    ffmpeg writes beside `path`. The file is renamed when the block ends, and deleted if it ends
    with an error. Raises `OSError` with ffmpeg's reason as soon as ffmpeg cannot go on. (imageio's
    writer does not look at ffmpeg's exit code: a full disk left a broken video and no error.)
    """

    def __init__(self, path: Path, frames_per_second: float = FRAMES_PER_SECOND):
        self._path = path
        self._frames_per_second = frames_per_second
        self._part = path.with_name(f".{path.name}.part")
        self._ffmpeg: subprocess.Popen | None = None

    def __enter__(self) -> "VideoWriter":
        return self

    def add(self, frame: UInt8[np.ndarray, "h w 3"]) -> None:
        """Adds a frame; all have one size, with even h and w."""
        if self._ffmpeg is None:
            self._start(*frame.shape[:2])
        try:
            self._ffmpeg.stdin.write(np.ascontiguousarray(frame).data)
        except OSError:  # ffmpeg has ended
            self._finish(early=True)

    def __exit__(self, error_type: type | None, *_) -> None:
        if self._ffmpeg is None:
            return
        try:
            if error_type is None:
                self._finish()
                self._part.replace(self._path)
        finally:
            self._ffmpeg.kill()  # does nothing once it has ended
            self._ffmpeg.communicate()
            self._part.unlink(missing_ok=True)

    def _start(self, height: int, width: int) -> None:
        import imageio_ffmpeg  # only videos need it

        # The ffmpeg of a killed process may still be writing its own file here; it must not write
        # into this one.
        self._part.unlink(missing_ok=True)
        self._ffmpeg = subprocess.Popen(
            [
                imageio_ffmpeg.get_ffmpeg_exe(),
                "-v",
                "error",
                "-xerror",
                "-f",
                "rawvideo",
                "-pix_fmt",
                "rgb24",
                "-s",
                f"{width}x{height}",
                "-r",
                f"{self._frames_per_second}",
                "-i",
                "-",
                "-an",
                "-vcodec",
                "libx264",
                "-pix_fmt",
                "yuv420p",
                "-crf",
                "25",
                "-f",
                "mp4",
                f"file:{self._part.absolute()}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )  # Ctrl-C is for this process, which then ends ffmpeg

    def _finish(self, early: bool = False) -> None:
        """Waits for ffmpeg. Raises `OSError` if it failed, or ended early."""
        _, messages = self._ffmpeg.communicate()
        if early or self._ffmpeg.returncode != 0:
            # Such as "[out#0/mp4 @ 0x55c35b74b440] Error writing trailer: No space left on device"
            reason = messages.decode(errors="replace").partition("\n")[0].rpartition("] ")[2]
            raise OSError(
                f"{self._path}: ffmpeg ended with exit code {self._ffmpeg.returncode}"
                + (f" ({reason})" if reason else "")
            )
