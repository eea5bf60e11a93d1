"""One connected browser: its controls, its camera, and the pictures it gets."""

import time
from collections import deque
from collections.abc import Callable

import numpy as np
import viser

from data_util import BORDER, nearest_views
from viewer import picture_choices
from viewer.actions import Actions
from viewer.camera import Canvas, fitting_fov, to_cam2world
from viewer.notices import Notice
from viewer.path_tab import PathTab
from viewer.renderer import Stopped
from viewer.scene import farthest_orbit, sees_grid
from viewer.scene_objects import ROOT, add_box, add_cameras, add_points
from viewer.shared import Shared
from viewer.surface import SurfaceControls
from viewer.training_tab import TrainingTab
from viewer.zoom import Zoom

JPEG_QUALITY = 90
MAX_CANVAS = 20_000  # pixels a side
SPEED_EVERY = 0.5  # seconds between updates of the frame rate that is shown
MIN_VISIBILITY = 0.5
MIN_SIZE = 32
SLOW = 0.5  # seconds; a picture that takes longer is announced
HINT = "Drag to turn, scroll to go nearer."
COMPUTING = "Computing …"
KEYS = """
| | |
|:--|:--|
| drag | turn around the grid |
| right-drag | shift |
| scroll | nearer, farther |
| W S | forward, back |
| A D | left, right |
| E Q | up, down |
| ← → ↑ ↓ | turn around the grid |
"""


class Browser:
    """What one browser sees. `draw` is for the rendering thread. What its controls do runs in
    threads of its own once `actions` have begun."""

    def __init__(self, client: viser.ClientHandle, shared: Shared):
        self.client = client
        self.shared = shared
        self._zoom = Zoom(shared)
        self._drawn_at: deque[float] = deque(maxlen=30)
        self._speed_shown_at = 0.0
        self._status = HINT
        self._is_slow = False
        self._drawn_model = None
        self._out_of_sight = Notice(client)
        self._computing = Notice(client)
        self.actions = Actions()
        self._root = client.scene.add_frame(ROOT, show_axes=False)
        self._objects: dict[str, viser.SceneNodeHandle] = {}
        self._features_of = None
        self._training = None
        with client.atomic():  # no control shows before it does something
            self._add_controls(client.gui)
        # Farther away, the depth planes end before the object.
        client.camera.max_orbit_distance = farthest_orbit(shared.model, shared.scene)
        client.camera.on_update(self._moved)

    async def _moved(self, _) -> None:
        self._ask()  # in viser's event loop, which must not wait

    def _ask(self) -> None:
        self.shared.renderer.ask(self.client.client_id)

    def refresh(self) -> None:
        """Shows another model, and what training has logged since."""
        self._title.content = self.shared.title()
        self._ask()
        self._show_features()
        self._surface.refresh()
        if self._training:
            self._training.update()

    def close(self) -> None:
        """Ends what goes on for a browser that has left."""
        self._path.closed = True
        self.actions.close()

    # Controls

    def _add_controls(self, gui: viser.GuiApi) -> None:
        shared = self.shared
        gui.configure_theme(show_logo=False, show_share_button=False)
        gui.main_panel.dock_right()
        self._title = gui.add_markdown(shared.title())
        self._speed = gui.add_markdown(COMPUTING)
        tabs = gui.add_tab_group()
        with tabs.add_tab("View"):
            self._add_view_controls(gui)
        with tabs.add_tab("Path"):
            self._path = PathTab(self.client, shared, self._zoom, self.actions)
        if shared.curves:
            with tabs.add_tab("Training"):
                self._training = TrainingTab(self.client, shared.curves)

    def _add_view_controls(self, gui: viser.GuiApi) -> None:
        api = self.client.scene
        model = self.shared.model
        scene = self.shared.scene
        self._choice = gui.add_dropdown(
            "Picture",
            picture_choices.choices(model.learns_depth, scene.views.images is not None),
            initial_value=picture_choices.COLOR,
        )
        self._choice.on_update(self.actions.callback(self._choose))
        side = scene.lens.sidelength - 2 * BORDER
        self._size = gui.add_slider(
            "Render size",
            min=min(MIN_SIZE, side),
            max=side,
            step=1,
            initial_value=side,
            hint="pixels a side; a smaller picture travels quicker, and takes the model as long",
        )
        self._size.on_update(self.actions.callback(self._ask))
        self._legend = gui.add_image(picture_choices.depth_legend(), visible=False)
        self._range = gui.add_markdown("", visible=False)
        self._caption = gui.add_markdown("", visible=False)
        gui.add_button("Back to the start", hint="the first view").on_click(
            self.actions.callback(self._go_to_start)
        )
        self._add_switch("Grid box", False, lambda: add_box(api, scene))
        self._add_switch("Cameras", False, lambda: add_cameras(api, scene))
        if self.shared.points is not None:
            self._add_switch(
                "Sparse points",
                False,
                lambda: add_points(
                    api, f"{ROOT}/points", *self.shared.points, size=0.005 * scene.intrinsics.scale
                ),
            )
        self._features = gui.add_checkbox(
            "Features",
            initial_value=False,
            visible=model.learns_depth,
            hint=(
                "what the persistent volume has learned: its voxels where visibility is high, "
                "coloured by three principal components"
            ),
        )
        self._least = gui.add_slider(
            "Visibility",
            min=0.02,
            max=0.98,
            step=0.02,
            initial_value=MIN_VISIBILITY,
            visible=False,
            hint="the least that a voxel needs, as a share of the highest",
        )
        for control in (self._features, self._least):
            control.on_update(self.actions.callback(self._show_features))
        self._surface = SurfaceControls(self.client, self.shared, self.actions)
        with gui.add_folder("Mouse and keys", expand_by_default=False):
            gui.add_markdown(KEYS)

    def _go_to_start(self) -> None:
        scene = self.shared.scene
        self._path.widen_as_training()
        self._path.look_from(scene.views.cam2world[scene.first], keep_up=True)

    def _add_switch(self, label: str, on: bool, add: Callable[[], viser.SceneNodeHandle]) -> None:
        """A checkbox that shows what `add` makes, which is made when it is first needed."""
        box = self.client.gui.add_checkbox(label, initial_value=on)

        def update() -> None:
            if label in self._objects:
                self._objects[label].visible = box.value
            elif box.value:
                self._objects[label] = add()

        box.on_update(self.actions.callback(update))
        update()

    def _choose(self) -> None:
        choice = self._choice.value
        self._root.visible = choice not in picture_choices.PAIRS
        self._legend.visible = self._range.visible = choice in picture_choices.DEPTHS
        self._caption.visible = choice == picture_choices.BESIDE_PHOTO
        self._ask()

    def _show_features(self) -> None:
        shown = self._features.value
        self._least.visible = shown
        wanted = (self.shared.model, self._least.value) if shown else None
        if wanted == self._features_of:
            return
        self._features_of = wanted
        if old := self._objects.pop("features", None):
            old.remove()
        if shown:
            if not self.shared.knows_features():
                self._computing.show(COMPUTING, "what the grid has learned", loading=True)
            try:
                cloud = self.shared.features().above(self._least.value)
                scene = self.shared.scene
            except Stopped:
                return  # the viewer ends
            finally:
                self._computing.hide()
            if self._features_of == wanted:  # not changed while they were computed
                self._objects["features"] = add_points(
                    self.client.scene,
                    f"{ROOT}/features",
                    cloud.points,
                    cloud.colors,
                    size=0.3 * scene.intrinsics.scale / self.shared.model.geometry.grid_dim,
                )

    # Pictures

    def draw(self) -> None:
        """Renders what the browser's camera sees now, and sends it."""
        camera = self.client.camera
        shared = self.shared
        choice = self._choice.value
        canvas = Canvas(camera.image_width, camera.image_height)
        if min(canvas) < 1 or max(canvas) > MAX_CANVAS:
            return  # a window that is folded away, or no window
        scene, model = self._zoom.seen()
        lens = scene.lens
        camera.fov = fitting_fov(lens, canvas)  # sends nothing if it is so already
        if choice == picture_choices.NOTHING:
            self.client.scene.set_background_image(None)
            return
        started = time.monotonic()
        cam2world = to_cam2world(camera.wxyz, camera.position)
        # The volume of a new model is inpainted first
        announced = self._is_slow or model is not self._drawn_model
        if announced:
            self._speed.content = COMPUTING
            self.client.flush()
        photo = None
        if choice == picture_choices.BESIDE_PHOTO:
            views = scene.views
            nearest = int(nearest_views(cam2world[None], views.cam2world, 1)[0, 0])
            photo = picture_choices.photo(views, nearest)
            self._caption.content = f"Left: render. Right: photo {views.names[nearest]}."
        frame = model.render_view(cam2world)
        shot = picture_choices.Shot(frame, shared.background(), photo, self._size.value)
        if choice in picture_choices.DEPTHS:
            near, far = shot.depth_range(lens)
            self._range.content = f"Depth: {near:.3g} (yellow) to {far:.3g} (blue) world units"
        self._send(picture_choices.draw(choice, shot, lens, canvas))
        self._drawn_model = model
        self._show_speed(started, announced)
        if sees_grid(cam2world[None], scene, model)[0]:
            self._out_of_sight.hide()
        else:
            self._out_of_sight.show("Nothing is in sight", "Back to the start, in the tab View.")

    def _send(self, picture: np.ndarray) -> None:
        self.client.scene.set_background_image(picture, format="jpeg", jpeg_quality=JPEG_QUALITY)
        self.client.flush()

    def _show_speed(self, started: float, announced: bool) -> None:
        now = time.monotonic()
        if self._drawn_at and now - self._drawn_at[-1] > 1:  # the camera stood still
            self._drawn_at.clear()
        self._drawn_at.append(now)
        if len(self._drawn_at) > 2 and now - self._speed_shown_at > SPEED_EVERY:
            rate = (len(self._drawn_at) - 1) / (now - self._drawn_at[0])
            self._status = f"{rate:.0f} pictures/s, each in {1000 * (now - started):.0f} ms"
            self._speed.content = self._status
            self._speed_shown_at = now
        elif announced:
            self._speed.content = self._status
        self._is_slow = now - started > SLOW
