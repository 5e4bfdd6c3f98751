"""Who may see the page and press its buttons.

On 127.0.0.1 everybody who can reach it may: whoever is logged in there. A page of another site must not get at it
through somebody's browser, though: a request has to name this machine as its host (a name that an attacker points here
does not), and only a page of our own may press a button. On another address a token is required, which comes once in
the address and is a cookie from then on.
"""

from __future__ import annotations

import hashlib
import hmac
import http.cookies
import ipaddress
import secrets
import socket
from dataclasses import dataclass
from email.message import Message
from typing import Optional
from urllib.parse import parse_qs, urlsplit

from liteship_agent.camera.errors import CameraError

AUTO, NONE = "auto", "none"
_LEAST_CHARACTERS = 8
_LOCAL = "localhost"


def choose_token(word: Optional[str], host: str) -> Optional[str]:
    """The token of a page.

    Args:
        word: A token, AUTO for a new one, NONE or null for none.
        host: The address that the page is served on.
    Returns:
        None where whoever reaches the page may see it.
    Raises:
        CameraError: others reach that address, and there is no token or a short one.
    """
    if word == AUTO:
        return secrets.token_urlsafe(16)
    if word is None or word == NONE:
        if not is_loopback(host):
            raise CameraError(
                f"a token is required where others reach the page, as on {host}. Received: none; "
                "add --token auto, or leave --host out and forward the port by SSH"
            )
        return None
    if len(word) < _LEAST_CHARACTERS or not word.isascii() or not word.isprintable() or " " in word:
        raise CameraError(
            f"a token of {_LEAST_CHARACTERS} or more letters, digits and signs is required. "
            f"Received: one of {len(word)}; --token auto makes a good one"
        )
    return word


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == _LOCAL:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class Access:
    """What a request must show.

    Args:
        host: The address that is served.
        token: Null where none is required.
    """

    host: str
    token: Optional[str]

    @property
    def cookie(self) -> str:
        """Name of the cookie: of the token, so that two cameras keep theirs and one that starts anew finds it again."""
        return f"liteship_camera_{hashlib.sha256((self.token or '').encode()).hexdigest()[:12]}"

    def set_cookie(self) -> str:
        """The header that gives a browser the cookie."""
        return f"{self.cookie}={self.token}; HttpOnly; SameSite=Strict; Path=/"

    def names_us(self, header: Optional[str]) -> bool:
        """Whether a Host header means this machine, whatever the port: it may be a forwarded one.

        A plain number is never a name that somebody could point here.
        """
        name = _host_name(header)
        if name is None:
            return False
        if is_loopback(name):
            return True
        if is_loopback(self.host):
            return False
        if name == self.host.lower():
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            own = socket.gethostname().lower()
            return name in (own, own.partition(".")[0], f"{own.partition('.')[0]}.local")
        return True

    def is_same_origin(self, headers: Message[str, str]) -> bool:
        """Whether a request that changes something comes from our own page."""
        origin, host = headers.get("Origin"), headers.get("Host")
        return origin is not None and host is not None and origin.lower() == f"http://{host.lower()}"

    def is_cross_site(self, headers: Message[str, str]) -> bool:
        """Whether a browser says that another site's page wants this, for example as a picture in it."""
        return headers.get("Sec-Fetch-Site", "none") in ("cross-site", "same-site")

    def has_token(self, query: str, headers: Message[str, str]) -> bool:
        """Whether a request has the token, in its address or as the cookie; compared in constant time."""
        if self.token is None:
            return True
        return self._equals(self._given(query)) or self._equals(self._kept(headers))

    def came_by_address(self, query: str) -> bool:
        """Whether the right token is in the address: then the browser gets the cookie."""
        return self.token is not None and self._equals(self._given(query))

    def _equals(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(errors="replace"), self.token.encode())

    def _given(self, query: str) -> str:
        try:
            return parse_qs(query, max_num_fields=8).get("token", [""])[0]
        except ValueError:
            return ""

    def _kept(self, headers: Message[str, str]) -> str:
        try:
            cookies = http.cookies.SimpleCookie(headers.get("Cookie", ""))
        except http.cookies.CookieError:
            return ""
        return cookies[self.cookie].value if self.cookie in cookies else ""


def _host_name(header: Optional[str]) -> Optional[str]:
    """The name of a Host header without port and brackets, in lower case; null where it is none."""
    try:
        return urlsplit(f"//{header}").hostname if header else None
    except ValueError:
        return None
