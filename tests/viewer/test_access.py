"""Who may use the viewer, with real handshakes and viser's own messages."""

import contextlib
import re
import socket
import threading
import time
from urllib.parse import urlsplit

import pytest
import viser

from tests.viewer.client import SECONDS, connected, get, handshake
from util import InputError
from viewer import picture_choices
from viewer import session as sessions
from viewer.__main__ import build_parser
from viewer.access import origin
from viewer.browser import Browser
from viewer.path_tab import MAX_PATH_NAME_BYTES, file_name

PREVIEWS = 33  # one more than viser has threads


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:PORT", None, 101),
        ("127.0.0.1:PORT", "http://127.0.0.1:PORT", 101),
        ("localhost:PORT", "http://localhost:PORT", 101),  # as through `ssh -L PORT:...:PORT`
        ("LOCALHOST:PORT", "http://LocalHost:PORT", 101),
        ("[::1]:PORT", "http://[::1]:PORT", 101),
        ("127.0.0.1:PORT", "https://evil.example", 403),
        ("127.0.0.1:PORT", "http://evil.example:PORT", 403),
        ("127.0.0.1:PORT", "http://127.0.0.1:1", 403),  # another program of this machine
        ("127.0.0.1:PORT", "http://127.0.0.1", 403),
        ("127.0.0.1:PORT", "https://127.0.0.1:PORT", 403),
        ("127.0.0.1:PORT", "http://127.0.0.1:PORT.evil.example", 403),
        ("127.0.0.1:PORT", "null", 403),
        ("127.0.0.1:PORT", "", 403),
        ("evil.example", "http://evil.example", 403),
        ("evil.example:PORT", None, 403),  # a name that leads to this machine
        ("evil.example:PORT", "http://evil.example:PORT", 403),
        ("user@localhost:PORT", None, 403),
        ("localhost:PORT@evil.example", None, 403),
        ("localhost", None, 403),
        ("", None, 403),
    ],
)
def test_only_the_viewers_own_pages_are_let_in(serve, host, origin, status):
    port = serve().server.get_port()
    headers = {"Host": host.replace("PORT", str(port))}
    if origin is not None:
        headers["Origin"] = origin.replace("PORT", str(port))
    assert handshake(port, **headers) == status
    page = get(port, **headers)
    assert page.status == (200 if status == 101 else 403)
    assert (b"<html" in page.body) == (status == 101)


def test_a_request_of_two_hosts_or_of_none_is_refused(serve):
    port = serve().server.get_port()
    own = f"127.0.0.1:{port}"
    assert get(port, Host="evil.example", host=own).status == 403
    assert handshake(port, Origin=f"http://{own}", origin="http://evil.example") == 403


def test_other_addresses_can_be_allowed(serve):
    port = serve(origins=["https://viewer.example", "http://localhost:9"]).server.get_port()
    assert handshake(port, Host="viewer.example", Origin="https://viewer.example") == 101
    assert handshake(port, Host="localhost:9", Origin="http://localhost:9") == 101
    assert handshake(port, Origin="https://viewer.example") == 101
    assert handshake(port, Origin="http://viewer.example") == 403
    assert handshake(port, Host="other.example") == 403


def test_other_machines_need_the_token_of_the_printed_address(serve):
    session = serve("0.0.0.0")
    port = session.server.get_port()
    address, token = re.fullmatch(
        r"http://([^/]+):\d+/\?token=([\w-]{20,})", session.address
    ).groups()
    assert address != "0.0.0.0"  # which no other machine could open
    own = f"127.0.0.1:{port}"
    for path in ("/", "/?token=", "/?token=wrong", f"/{token}", f"/?other={token}"):
        assert get(port, path).status == 403
    assert handshake(port) == 403
    assert handshake(port, Origin=f"http://{own}") == 403
    assert handshake(port, Cookie=f"deepvoxels_{port}=wrong; token={token}") == 403
    page = get(port, f"/?token={token}")
    assert page.status == 200
    cookie = page.getheader("Set-Cookie")
    assert {"HttpOnly", "SameSite=Strict"} < set(cookie.split("; "))
    kept = {"Cookie": f"other=1; {cookie.partition(';')[0]}"}
    assert get(port, **kept).status == 200
    assert handshake(port, Origin=f"http://{own}", **kept) == 101
    assert handshake(port, Host=f"{address}:{port}", **kept) == 101
    assert handshake(port, Origin="https://evil.example", **kept) == 403
    assert handshake(port, Host="evil.example", **kept) == 403
    assert session.address != serve("0.0.0.0").address


def test_ipv6_addresses_are_served_too(serve):
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        pytest.skip(f"this machine has no IPv6 ({error})")
    session = serve("::1")
    port = session.server.get_port()
    assert session.address == f"http://[::1]:{port}"
    assert handshake(port, at="::1", Origin=session.address) == 101
    assert handshake(port, at="::1", Origin="https://evil.example") == 403
    session = serve("::")
    port = session.server.get_port()
    query = urlsplit(session.address).query
    assert get(port, "/", at="::1").status == 403
    assert get(port, f"/?{query}", at="::1").status == 200


def test_this_machine_alone_needs_no_token(serve):
    session = serve("localhost")
    assert session.address == f"http://localhost:{session.server.get_port()}"


def test_no_other_page_shows_the_viewer_in_a_frame(serve):
    page = get(serve(origins=["https://viewer.example"]).server.get_port())
    policy = page.getheader("Content-Security-Policy")
    assert policy == "frame-ancestors 'self' https://viewer.example"


def test_a_viser_that_lets_strangers_in_is_not_served(serve, monkeypatch):
    """Where it has changed inside, so that our guard stands before nothing."""
    monkeypatch.setattr(sessions, "guarding", contextlib.nullcontext)
    with pytest.raises(InputError, match="viser .*: cannot be kept from strangers") as error:
        serve()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["//[", "/?token=\xff", "/?token=%ff"])
def test_a_request_that_cannot_be_read_is_refused_too(serve, path):
    port = serve("0.0.0.0").server.get_port()
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
        connection.sendall(request.encode("latin-1"))
        assert connection.makefile("rb").readline() == b"HTTP/1.1 403 Forbidden\r\n"


def test_an_origin_is_taken_as_browsers_send_it():
    assert origin("HTTPS://Viewer.Example:443/") == "https://viewer.example"
    assert origin("http://[::1]:80") == "http://[::1]"
    assert origin("https://viewer.example:80") == "https://viewer.example:80"


@pytest.mark.parametrize(
    "text",
    [
        "evil",
        "ftp://a.example",
        "https://",
        "https://a.example/path",
        "https://*",
        "https://[bad",
        "https://a.example;script-src",
        "https://user@a.example",
        "https://a.example:",
    ],
)
def test_what_is_no_origin_is_refused(text, capsys):
    with pytest.raises(SystemExit) as end:
        words = ["--checkpoint", "x", "--logging_root", "y", "--allow_origin", text]
        build_parser().parse_args(words)
    assert end.value.code == 2
    assert text in capsys.readouterr().err


def test_messages_to_browsers_name_no_folder_of_this_machine(serve, tmp_path):
    session = serve()
    with connected(session.server.get_port()) as client:
        client.click("Save")
        client.wait_for(lambda client: "add a view first" in client.text())
        client.click("Add this view")
        client.wait_for(lambda client: "'1'" in client.text())
        client.click("Name", value="here")
        client.click("Save")
        client.wait_for(lambda client: "Saved paths/here" in client.text())
        client.click("Save")
        client.wait_for(lambda client: "paths/here: already exists" in client.text())
        (tmp_path / "logs" / "test_traj").write_text("in the way")
        client.click("Name", value="again")
        client.click("Render video")
        client.wait_for(lambda client: "the logging root: cannot be written" in client.text())
    assert not any(
        folder in text
        for text in client.texts
        for folder in (str(tmp_path), str(session.shared.scene.root))
    )


def test_names_are_cut_by_bytes(serve):
    assert file_name("日" * 200) == "日" * (MAX_PATH_NAME_BYTES // 3)
    assert file_name(" ../a b/ü ") == "_a_b_ü"
    assert file_name("...") == ""
    with connected(serve().server.get_port()) as client:
        client.click("Add this view")
        client.wait_for(lambda client: "'1'" in client.text())
        client.click("Name", value="日" * 200)
        client.click("Save")
        client.wait_for(lambda client: "Saved paths/日" in client.text())


def test_previews_keep_nobody_out(serve):
    port = serve().server.get_port()
    clients = []
    with contextlib.ExitStack() as stack:
        for _ in range(PREVIEWS):
            client = stack.enter_context(connected(port))
            clients.append(client)
            client.click("Add this view")
            client.wait_for(lambda client: "'1'" in client.text())
            client.click("Seconds", value=120.0)
            client.click("Preview")
            client.wait_for(lambda client: client.control("Stop"))
        newcomer = stack.enter_context(connected(port))
        newcomer.wait_for(lambda client: client.control("Preview"))
        clients[-1].click("Stop")
        clients[-1].wait_for(lambda client: client.control("Preview"))


def test_no_control_shows_before_it_does_something(serve, monkeypatch):
    """On a busy machine, time passes between the two."""
    on_click = viser.GuiButtonHandle.on_click

    def on_click_late(button, callback):
        time.sleep(0.2)
        return on_click(button, callback)

    monkeypatch.setattr(viser.GuiButtonHandle, "on_click", on_click_late)
    with connected(serve().server.get_port()) as client:
        client.click("Save")
        client.wait_for(lambda client: "add a view first" in client.text())


def test_a_click_before_all_is_ready_is_done_after(serve, monkeypatch, capfd):
    clicked = threading.Event()
    refresh = Browser.refresh

    def refresh_late(browser):
        clicked.wait(SECONDS)
        refresh(browser)

    monkeypatch.setattr(Browser, "refresh", refresh_late)
    with connected(serve().server.get_port()) as client:
        client.click("Picture", value=picture_choices.DEPTH)
        client.receive(0.5)
        clicked.set()

        def legend_is_shown(client):
            images = [props for props in client.controls.values() if "Image" in props["type"]]
            return any(props.get("visible") for props in images)

        client.wait_for(legend_is_shown)
    assert capfd.readouterr().err == ""


def test_what_is_sent_to_a_browser_that_left_goes_nowhere(serve, recwarn):
    """viser would warn of it, and keep it."""
    session = serve()
    with connected(session.server.get_port()) as client:
        client.wait_for(lambda client: client.picture is not None)
        (browser,) = session._browsers.values()
    while session.server.get_clients():
        time.sleep(0.01)
    browser.refresh()
    browser.draw()
    assert [str(warning.message) for warning in recwarn] == []
