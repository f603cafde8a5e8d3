"""Who may call: callers with the login, and no web pages. And whether a caller has hung up."""

from __future__ import annotations

import hmac
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from typing import Any

from flask import Response, request
from werkzeug.exceptions import Forbidden

from yolo_backend.server.responses import error_response
from yolo_backend.settings import Settings


def check_login(settings: Settings) -> Response | None:
    """The answer to a caller without the right login; None if it is right, or if none is set."""
    if not settings.basic_auth_user or not settings.basic_auth_pass:
        return None
    given = request.authorization
    if given is None and "Authorization" not in request.headers and request.path == "/health":
        return None
    user, password = (given.username or "", given.password or "") if given and given.type == "basic" else ("", "")
    user_is_right = hmac.compare_digest(user.encode(), settings.basic_auth_user.encode())
    password_is_right = hmac.compare_digest(password.encode(), settings.basic_auth_pass.get_secret_value().encode())
    if user_is_right and password_is_right:
        return None
    response = error_response(401, "The login is missing or wrong: give BASIC_AUTH_USER and BASIC_AUTH_PASS")
    response.headers["WWW-Authenticate"] = 'Basic realm="YOLO backend"'
    return response


def check_origin() -> None:
    """Raises Forbidden for a post from a web page.

    Any web page can make its visitor's browser post here; Label Studio's own posts come from no page.
    """
    if request.method == "POST" and ("Origin" in request.headers or "Sec-Fetch-Site" in request.headers):
        raise Forbidden("Posts from web pages are not served")


def client_has_gone(environ: Mapping[str, Any]) -> Callable[[], bool]:
    """Returns a function that says whether the connection of this request was closed at the other end."""
    connection = environ.get("gunicorn.socket", environ.get("werkzeug.socket"))

    def has_gone() -> bool:
        if (
            not isinstance(connection, socket.socket)
            or isinstance(connection, ssl.SSLSocket)
            or sys.platform == "win32"
        ):
            return False  # only reading from it could tell
        try:
            return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    return has_gone
