"""A word over the picture, at its upper left."""

import threading

import viser


class Notice:
    """A word for one browser, shown until it is hidden."""

    def __init__(self, client: viser.ClientHandle):
        self._client = client
        self._shown: viser.NotificationHandle | None = None
        self._lock = threading.Lock()

    def show(self, title: str, text: str, loading: bool = False) -> None:
        """Shows it, if it is not shown. `loading`: with a sign that something goes on."""
        with self._lock:
            if self._shown is None:
                self._shown = self._client.add_notification(
                    title, text, loading=loading, with_close_button=not loading
                )

    def hide(self) -> None:
        """Takes it away, if it is shown."""
        with self._lock:
            if self._shown is not None:
                self._shown.remove()
            self._shown = None
