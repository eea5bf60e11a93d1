"""The controls of the learned surface: shown as a point cloud, downloaded as a PLY file."""

import viser

from evaluation.fusion import Cloud
from files.points import to_ply
from viewer.actions import Actions
from viewer.renderer import Stopped
from viewer.scene_objects import ROOT, add_points
from viewer.shared import Shared


class SurfaceControls:
    """Made where the caller's `gui` context is. A surface belongs to the model that was shown when
    it was asked for."""

    def __init__(self, client: viser.ClientHandle, shared: Shared, actions: Actions):
        self.client = client
        self.shared = shared
        self._model = None
        self._cloud = None
        self._points: viser.PointCloudHandle | None = None
        self._switch = client.gui.add_checkbox(
            "Surface",
            initial_value=False,
            visible=shared.model.learns_depth,
            hint="points on which the learned depth of many views agrees",
        )
        self._progress = client.gui.add_progress_bar(0, visible=False)
        self._state = client.gui.add_markdown("", visible=False)
        self._download = client.gui.add_button("Download surface (PLY)", visible=False)
        self._switch.on_update(actions.callback(self._show_or_hide))
        self._download.on_click(actions.callback(self._send))

    def refresh(self) -> None:
        """Hides the surface of a model that is not shown any more."""
        if self._model is not None and self._model is not self.shared.model:
            self._switch.value = False
            self._hide()

    def _show_or_hide(self) -> None:
        self._hide()
        if not self._switch.value:
            return
        model = self._model = self.shared.model
        self._state.content = "Computing …"
        self._state.visible = True
        self._progress.value = 0
        self._progress.visible = True
        try:
            cloud = self.shared.surface(model, self._show_progress)
        except Stopped:
            return  # the viewer ends
        finally:
            self._progress.visible = False
        if (
            self._model is model and self._switch.value and not self._points
        ):  # nothing else was chosen meanwhile
            self._show(cloud)

    def _show(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._state.visible = True
        if not len(cloud.points):
            self._state.content = "The views agree on no surface yet."
            return
        self._state.content = f"{len(cloud.points):,} points"
        self._download.visible = True
        self._points = add_points(
            self.client.scene,
            f"{ROOT}/surface",
            cloud.points,
            cloud.colors,
            size=0.5 * self.shared.scene.intrinsics.scale / self.shared.model.geometry.grid_dim,
        )

    def _hide(self) -> None:
        if self._points:
            self._points.remove()
        self._model = self._points = None
        self._state.visible = self._download.visible = False

    def _show_progress(self, done: int, total: int) -> None:
        self._progress.value = 100 * done / total

    def _send(self) -> None:
        in_files_world = self._cloud.points + self.shared.scene.offset
        ply = to_ply(in_files_world, self._cloud.colors, self._cloud.normals)
        self.client.send_file_download("surface.ply", ply, save_immediately=True)
