"""The gateway as one application sees it: JSON requests, and a stream of events."""

import json
from collections.abc import Iterator
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

# The gateway writes something to an event stream every 15 seconds.
SILENCE_SECONDS_MAX = 45


class Problem(Exception):
    """The gateway's refusal of a request: a problem document (RFC 9457)."""

    def __init__(self, members: dict[str, Any]) -> None:
        super().__init__(members["detail"])
        self.members = members
        self.status: int = members["status"]
        self.type: str = members["type"]

    def is_of(self, slug: str) -> bool:
        """Whether it is of this type, such as `stale-epoch`. The page `/problems/stale-epoch` explains it."""
        return self.type == f"/problems/{slug}"


class Gateway:
    def __init__(self, url: str, app: str, token: str) -> None:
        self.url = url
        self.app = app
        self.token = token

    def send(self, method: str, path: str, body: object = None) -> Any:
        """Sends a request about the application, such as `POST /clients`.

        Raises a `Problem` if the gateway refuses it.
        """
        with self._open(method, path, body) as response:
            text = response.read()
        return json.loads(text) if text else None

    def events(self) -> Iterator[tuple[str, Any]]:
        """Opens the application's event stream. It has the kind and the data of every event from now on."""
        return _read_events(self._open("GET", "/events"))

    def _open(self, method: str, path: str, body: object = None) -> Any:
        request = Request(f"{self.url}/apps/{self.app}{path}", method=method)
        request.add_header("Authorization", f"Bearer {self.token}")
        if body is not None:
            request.add_header("Content-Type", "application/json")
            request.data = json.dumps(body).encode()
        try:
            return urlopen(request, timeout=SILENCE_SECONDS_MAX)
        except HTTPError as refusal:
            if refusal.headers.get_content_type() != "application/problem+json":
                raise RuntimeError(f"{self.url} is not a gateway: it answered with status {refusal.code}") from None
            raise Problem(json.load(refusal)) from None


def _read_events(response: Any) -> Iterator[tuple[str, Any]]:
    """Reads server-sent events. Each is a block of lines `name: value`, and ends with an empty line.

    A server that runs for long stores the `id` of the last event that it handled, and opens its next stream with
    `?after=` and that id. No event is lost or repeated then.
    """
    fields: dict[str, str] = {}
    for line in response:
        name, _, value = line.decode().rstrip("\n").partition(": ")
        if name:
            fields[name] = value
            continue
        # Blocks without them keep the connection open, or hold only the id of the place where the stream begins.
        if "event" in fields and "data" in fields:
            yield fields["event"], json.loads(fields["data"])
        fields = {}
