"""The controls of camera paths: keyframes, preview, saving, and the video."""

import re
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import viser

from data_util import load_intrinsics
from evaluation.video_writer import FRAMES_PER_SECOND
from geometry.paths import around
from util import InputError, one_line
from viewer.actions import Actions
from viewer.camera import lens_of, to_cam2world
from viewer.paths import (
    MAX_KEYFRAMES,
    MAX_SECONDS,
    CameraPath,
    load_path,
    render_video,
    save_path,
    saved_paths,
)
from viewer.scene import orbit_center
from viewer.scene_objects import ROOT, add_camera
from viewer.shared import Shared
from viewer.zoom import Zoom, field_of_view

PATH_COLOR = (235, 150, 20)
NONE = "none"
# File systems take 255 bytes, of which folders in the making and runs need some.
MAX_PATH_NAME_BYTES = 100
ABSOLUTE = re.compile(r"(?<![\w.…])/(?:[^/\n]+/)*([^/\n]+)")
MIN_SECONDS = 0.1
GO = "Go to"
EARLIER = "Earlier"
LATER = "Later"
DELETE = "Delete"
ORBIT_KEYFRAMES = 8
ORBIT_SECONDS = 8.0


def file_name(text: str) -> str:
    """A name for a folder, made of what a user typed: at most `MAX_PATH_NAME_BYTES`; empty if
    nothing is left."""
    name = re.sub(r"[^\w.-]", "_", text.strip()).encode()[:MAX_PATH_NAME_BYTES]
    return name.decode(errors="ignore").strip(".")  # half a character is left out


class Keyframe(NamedTuple):
    """A pose, and the seconds to the next one; 0 for the path's even pace."""

    pose: np.ndarray
    seconds: float = 0.0


class PathTab:
    """One browser's path. Its controls are made where the caller's `gui` context is."""

    def __init__(self, client: viser.ClientHandle, shared: Shared, zoom: Zoom, actions: Actions):
        self.client = client
        self.shared = shared
        self.zoom = zoom
        self.actions = actions
        self.folder = shared.logging_root / "paths"
        self.keyframes: list[Keyframe] = []
        self.closed = False  # whether the browser has left
        self._saved: tuple[str, CameraPath, float] | None = None  # with its field of view
        self._video = None
        self._playing = False
        self._drawn: list[viser.SceneNodeHandle] = []
        self._lock = threading.RLock()  # of what the keyframes' list and drawings show
        self._shown = 0  # the keyframe whose seconds are shown
        self._add_controls(client.gui)

    def _add_controls(self, gui: viser.GuiApi) -> None:
        gui.add_button("Add this view").on_click(self._reporting(self._add))
        gui.add_button(
            "Orbit", hint="a path around the grid, instead of the keyframes that there are"
        ).on_click(self._reporting(self._orbit))
        self._selected = gui.add_dropdown("Keyframe", (NONE,))
        self._selected.on_update(self._at_once(self._show_leg))
        self._edit = gui.add_button_group("", (GO, EARLIER, LATER, DELETE))
        self._edit.on_click(self._reporting(self._edit_selected))
        self._leg = gui.add_number(
            "To the next",
            initial_value=0.0,
            min=0.0,
            max=MAX_SECONDS,
            step=0.1,
            hint="seconds to the next keyframe; 0: at the path's even pace",
        )
        self._leg.on_update(self._at_once(self._set_leg))
        self._seconds = gui.add_number(
            "Seconds",
            initial_value=4.0,
            min=MIN_SECONDS,
            max=MAX_SECONDS,
            step=0.1,
            hint="of the whole path at an even pace",
        )
        self._seconds.on_update(self._reporting(self._show_duration))
        self._loop = gui.add_checkbox(
            "Closed", initial_value=True, hint="return to the first keyframe"
        )
        self._loop.on_update(self._reporting(self._redraw))
        self._duration = gui.add_markdown("", visible=False)
        least, most = self.zoom.limits
        self._degrees = gui.add_slider(
            "View angle",
            min=least,
            max=most,
            step=0.1,
            initial_value=round(self.zoom.training, 1),
            visible=self.zoom.can_change,
            hint="field of view in degrees, of the picture and of the video",
        )
        self._degrees.on_update(self._reporting(self._choose_degrees))
        self._preview = gui.add_button("Preview")
        self._preview.on_click(self._reporting(self._play_or_stop))
        self._name = gui.add_text(
            "Name", initial_value="path", hint="a folder under paths/ of the logging root"
        )
        gui.add_button("Save").on_click(self._reporting(self._save))
        self._loadable = gui.add_dropdown("Saved", tuple(saved_paths(self.folder)) or (NONE,))
        gui.add_button("Load").on_click(self._reporting(self._load))
        self._render_button = gui.add_button("Render video", hint="saves the path first")
        self._render_button.on_click(self._reporting(self._render))
        self._progress = gui.add_progress_bar(0, visible=False)
        self._download = gui.add_button("Download video", visible=False)
        self._download.on_click(self._reporting(self._send_video))
        self._state = gui.add_markdown("")

    def _reporting(self, action: Callable[[], None]) -> Callable:
        """A callback that shows what a user can mend."""
        return self.actions.callback(lambda: self._do(action))

    def _at_once(self, action: Callable[[], None]) -> Callable:
        """The same for what is quick, in the order in which the browser sends it: in viser's event
        loop."""

        async def callback(_) -> None:
            self._do(action)

        return callback

    def _do(self, action: Callable[[], None]) -> None:
        try:
            action()
        except (InputError, OSError) as error:
            self._state.content = f"**Not done:** {self._without_folders(str(error))}"

    def _without_folders(self, text: str) -> str:
        """A message that names files as they lie under the logging root: where that is on this
        machine is nobody's business."""
        for root in (self.shared.logging_root, self.shared.logging_root.resolve()):
            text = text.replace(f"--logging_root {root}", "the logging root")
            text = text.replace(f"{root}/", "").replace(str(root), "the logging root")
        return ABSOLUTE.sub(r"…/\1", one_line(text))

    # Keyframes

    def _path(self) -> CameraPath:
        """The path through the keyframes, however long it takes."""
        if not self.keyframes:
            raise InputError("add a view first")
        seconds = float(
            np.clip(self._seconds.value, MIN_SECONDS, MAX_SECONDS)
        )  # a browser can send anything
        poses, legs = zip(*self.keyframes, strict=True)
        return CameraPath(np.stack(poses), seconds, bool(self._loop.value), legs)

    def _allowed_path(self) -> CameraPath:
        """The same path. Raises `InputError` if it takes too long to be flown or saved."""
        path = self._path()
        duration = path.duration(self.shared.scene.intrinsics.scale)
        if duration > MAX_SECONDS:
            raise InputError(
                f"the path takes {duration:.1f} s; at most {MAX_SECONDS:g} are allowed"
            )
        return path

    def _add(self) -> None:
        if len(self.keyframes) >= MAX_KEYFRAMES:
            raise InputError(f"a path has at most {MAX_KEYFRAMES} keyframes")
        camera = self.client.camera
        self.keyframes.append(Keyframe(to_cam2world(camera.wxyz, camera.position)))
        self._redraw(select=len(self.keyframes) - 1)

    def _orbit(self) -> None:
        """Keyframes around the grid, at the distance and the height of the training cameras."""
        scene = self.shared.scene
        poses = around(scene.views.cam2world, scene.origin, ORBIT_KEYFRAMES, climb=False)
        self.keyframes = [Keyframe(pose) for pose in poses]
        self._seconds.value = ORBIT_SECONDS
        self._loop.value = True
        self._redraw(select=0)

    def _show_leg(self) -> None:
        with self._lock:
            if self.keyframes:
                self._shown = int(self._selected.value) - 1
                self._leg.value = self.keyframes[self._shown].seconds

    def _set_leg(self) -> None:
        with self._lock:
            if not self.keyframes:
                return
            seconds = float(np.clip(self._leg.value, 0.0, MAX_SECONDS))
            self.keyframes[self._shown] = self.keyframes[self._shown]._replace(seconds=seconds)
        self._show_duration()

    def _show_duration(self) -> None:
        self._duration.visible = len(self.keyframes) > 1
        if self.keyframes:
            duration = self._path().duration(self.shared.scene.intrinsics.scale)
            limit = f"; at most {MAX_SECONDS:g} are allowed" if duration > MAX_SECONDS else ""
            self._duration.content = f"{duration:.1f} s in all{limit}"

    def _choose_degrees(self) -> None:
        self.zoom.choose(self._degrees.value)
        self.shared.renderer.ask(self.client.client_id)
        self._redraw()

    def widen_as_training(self) -> None:
        """Takes the field of view of the training cameras again."""
        self._degrees.value = round(self.zoom.training, 1)

    def _edit_selected(self) -> None:
        if not self.keyframes:
            raise InputError("add a view first")
        index = int(self._selected.value) - 1
        action = self._edit.value
        last = len(self.keyframes) - 1
        if action == GO:
            self.look_from(self.keyframes[index].pose, keep_up=True)
            return
        keyframe = self.keyframes.pop(index)
        if action != DELETE:
            index = min(max(index + (1 if action == LATER else -1), 0), last)
            self.keyframes.insert(index, keyframe)
        self._redraw(select=min(index, len(self.keyframes) - 1))

    def _redraw(self, select: int | None = None) -> None:
        """Shows the keyframes in the list and, with the path through them, in the scene."""
        with self._lock:
            self._redraw_all(select)

    def _redraw_all(self, select: int | None) -> None:
        names = tuple(str(i + 1) for i in range(len(self.keyframes))) or (NONE,)
        chosen = self._selected.value if select is None or select < 0 else str(select + 1)
        self._selected.options = names
        self._selected.value = chosen if chosen in names else names[0]
        self._show_leg()
        for node in self._drawn:
            node.remove()
        self._drawn = []
        api = self.client.scene
        scene, _ = self.zoom.seen()
        self._drawn = [
            add_camera(api, f"{ROOT}/keyframes/{i}", scene, keyframe.pose, color=PATH_COLOR)
            for i, keyframe in enumerate(self.keyframes)
        ]
        if len(self.keyframes) > 1:
            centers = self._path().line(scene.intrinsics.scale)
            if self._loop.value:
                centers = np.concatenate([centers, centers[:1]])
            self._drawn.append(
                api.add_line_segments(
                    f"{ROOT}/keyframes/line",
                    np.stack([centers[:-1], centers[1:]], axis=1),
                    PATH_COLOR,
                    thickness=2,
                    thickness_units="screen",
                )
            )
        self._show_duration()
        self._state.content = ""

    # The camera

    def look_from(self, cam2world: np.ndarray, keep_up: bool) -> None:
        """Moves the browser's camera. `keep_up` leaves what orbits turn about as it is."""
        camera = self.client.camera
        with self.client.atomic():
            camera.up_direction = self.shared.scene.up if keep_up else -cam2world[:3, 1]
            camera.position = cam2world[:3, 3]
            camera.look_at = orbit_center(cam2world, self.shared.scene)

    def _play_or_stop(self) -> None:
        if self._playing:
            self._playing = False
            return
        poses = self._allowed_path().poses(self.shared.scene.intrinsics.scale)
        self._playing = True
        self._preview.label = "Stop"
        frame = 0
        for node in self._drawn:
            node.visible = False
        try:
            started = time.monotonic()
            while self._playing and not self.closed:
                frame = int((time.monotonic() - started) * FRAMES_PER_SECOND)
                if frame >= len(poses):
                    break
                self.look_from(poses[frame], keep_up=False)
                time.sleep(1 / FRAMES_PER_SECOND)
        finally:
            self._playing = False
            self._preview.label = "Preview"
            if not self.closed:
                self.look_from(poses[min(frame, len(poses) - 1)], keep_up=True)
                for node in self._drawn:
                    node.visible = True

    # Files

    def _save(self) -> None:
        name = file_name(self._name.value)
        if not name:
            raise InputError("give the path a name")
        path = self._allowed_path()
        degrees = self.zoom.degrees
        save_path(self.folder / name, path, *self.zoom.seen())
        self._saved = name, path, degrees
        self._loadable.options = tuple(saved_paths(self.folder))
        self._loadable.value = name
        self._state.content = f"Saved paths/{name}"

    def _load(self) -> None:
        name = self._loadable.value
        if name == NONE or name not in saved_paths(self.folder):
            raise InputError("there is no saved path of that name")
        path = load_path(self.folder / name).moved(-self.shared.scene.offset)
        intrinsics = load_intrinsics(self.folder / name / "intrinsics.txt")
        self.zoom.choose(field_of_view(lens_of(intrinsics, self.shared.scene.lens.sidelength)))
        degrees = self.zoom.degrees
        self._degrees.value = round(degrees, 1)
        legs = path.legs or (0.0,) * len(path.keyframes)
        self.keyframes = [Keyframe(*each) for each in zip(path.keyframes, legs, strict=True)]
        self._seconds.value = path.seconds
        self._loop.value = path.closed
        self._name.value = name
        self._saved = name, path._replace(legs=legs), degrees
        self._redraw(select=0)

    def _is_saved(self) -> bool:
        """Whether the path, as it is now, was saved or loaded under the name that is shown."""
        if self._saved is None:
            return False
        name, saved, degrees = self._saved
        path = self._allowed_path()
        same_name = file_name(name) == file_name(self._name.value)
        same = same_name and saved[1:] == path[1:] and degrees == self.zoom.degrees
        return same and np.array_equal(saved.keyframes, path.keyframes)

    def _render(self) -> None:
        if not self._is_saved():
            self._save()
        name, path, _ = self._saved
        _, model = self.zoom.seen()
        poses = path.poses(self.shared.scene.intrinsics.scale)
        self._render_button.disabled = True
        self._progress.visible = True
        self._download.visible = False
        try:
            report = self._show_progress
            folder = render_video(self.folder / name, poses, model, self.shared, report)
        finally:
            self._render_button.disabled = False
            self._progress.visible = False
        self._video = (name, folder / "video.mp4")
        self._download.visible = True
        self._state.content = f"Rendered {self._without_folders(str(folder))}"

    def _show_progress(self, share: float) -> None:
        self._progress.value = 100 * share

    def _send_video(self) -> None:
        name, file = self._video
        self.client.send_file_download(f"{name}.mp4", file.read_bytes(), save_immediately=True)
