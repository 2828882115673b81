"""Real values for schemathesis.

A schema cannot say that a string is an MLS message, or a cursor that this gateway gave. The story of the document's examples is
played at the gateway first; then schemas of such members get a format whose values come from it.
"""

import json
import os
import urllib.parse
import urllib.request

import schemathesis
from hypothesis import strategies as st

URL = os.environ["MIMI_URL"]
TOKEN = os.environ["MIMI_TOKEN"]
APPLICATION = os.environ["MIMI_APPLICATION"]


def ask(method: str, path: str, body: object = None) -> dict:
    """Sends a request of the application that must succeed."""
    request = urllib.request.Request(URL + path, method=method, headers={"Authorization": f"Bearer {TOKEN}"})
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request, timeout=20) as answer:
        content = answer.read()
    return json.loads(content) if content else {}


def first_event_id() -> str:
    """The id with which a stream of the application begins."""
    request = urllib.request.Request(f"{URL}/apps/{APPLICATION}/events", headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=20) as stream:
        return stream.readline().decode().removeprefix("id: ").strip()


class Story:
    """The examples of a document, played in their order; what deletes is left out."""

    def __init__(self, document: dict) -> None:
        self.operations = {
            operation["operationId"]: (method.upper(), path, operation)
            for path, item in document["paths"].items()
            for method, operation in item.items()
        }
        self.ids: dict[str, str] = {}

    def shown(self, name: str) -> dict:
        """The example of a request body."""
        return self.operations[name][2]["requestBody"]["content"]["application/json"]["example"]

    def play(self, name: str, **query: object) -> dict:
        method, path, operation = self.operations[name]
        for parameter in operation["parameters"]:
            if parameter["in"] == "path":
                value = self.ids.get(parameter["name"], parameter["example"])
                path = path.replace("{%s}" % parameter["name"], urllib.parse.quote(value, safe=""))
        answer = ask(method, path + "?" + urllib.parse.urlencode(query), self.shown(name) if "requestBody" in operation else None)
        self.ids.update({key: answer[key] for key in ("clientId", "keyQueueId", "groupId") if key in answer})
        return answer


def values(name: str, *choices: str) -> str:
    """A format with these values."""
    schemathesis.openapi.format(name, st.sampled_from(choices))
    return name


def set_format(schema: dict, name: str) -> None:
    """Gives a string schema a format; one that may be null stays so."""
    nullable = "oneOf" in schema or "null" in schema.get("type", ())
    schema.clear()
    schema.update({"type": ["string", "null"] if nullable else "string", "format": name})


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict) -> None:
    story = Story(raw_schema)
    story.ids["appId"] = APPLICATION
    event = values("x-event", first_event_id())
    for name in ("registerClient", "createKeyQueue", "uploadKeyPackages", "createGroup", "uploadProposal", "uploadCommit"):
        story.play(name)
    # A second client, so that the list has a second page.
    ask("POST", f"/apps/{APPLICATION}/clients", {"clientHandle": "carol", "tags": ["account:carol"]})
    welcome = story.play("listWelcomes")["joinInfos"][0]
    cursor = story.play("findClients", limit=1)["nextCursor"]

    schemas = raw_schema["components"]["schemas"]
    group, commit, upload = story.shown("createGroup"), story.shown("uploadCommit"), story.shown("uploadKeyPackages")
    new_group = schemas["NewGroup"]["properties"]
    set_format(new_group["groupInfo"], values("x-group-info", group["groupInfo"]))
    # The group info of the story has no tree in it.
    new_group["ratchetTree"] = {"type": "string", "format": values("x-tree", group["ratchetTree"])}
    schemas["NewGroup"]["required"] = ["groupInfo", "ratchetTree"]
    set_format(schemas["ProposalUpload"]["properties"]["packet"], values("x-proposal", story.shown("uploadProposal")["packet"]))
    for member in ("commitPacket", "groupInfo", "welcomePacket"):
        set_format(schemas["CommitUpload"]["properties"][member], values(f"x-{member}", commit[member]))
    # The first package is used by the commit.
    set_format(schemas["KeyPackageUpload"]["properties"]["keyPackages"]["items"], values("x-package", upload["keyPackages"][1]))
    set_format(schemas["KeyPackageUpload"]["properties"]["finalKey"], values("x-final-key", upload["finalKey"]))
    # The application has no domains, so it takes none.
    del schemas["NewClient"]["properties"]["domain"]
    del schemas["EpochReport"]["properties"]["domain"]

    other = "00000000-0000-4000-8000-000000000000"
    path = {
        "appId": values("x-application", APPLICATION),
        "clientId": values("x-client", story.ids["clientId"], other),
        "keyQueueId": values("x-queue", story.ids["keyQueueId"], other),
        "groupId": values("x-group", story.ids["groupId"], "AAEC"),
        "id": values("x-welcome", welcome["id"]),
    }
    for name, (_, _, operation) in story.operations.items():
        # The application takes no domain, a long wait is none of a test, and a cursor belongs to its list: here that of all clients.
        left_out = {"domain", "waitMs"} if name == "findClients" else {"domain", "waitMs", "cursor"}
        operation["parameters"] = [
            parameter for parameter in operation.get("parameters", []) if parameter["name"] not in left_out
        ]
        for parameter in operation["parameters"]:
            if parameter["name"] in path:
                parameter["schema"] = {"type": "string", "format": path[parameter["name"]]}
                parameter["example"] = story.ids.get(parameter["name"], parameter["example"])
            elif parameter["name"] == "cursor":
                parameter["schema"] = {"type": "string", "format": values("x-cursor", cursor)}
            elif parameter["name"] == "after" and name.startswith("stream"):
                # A stream that begins now has nothing to tell yet. After this id, one tells the story and the other a reset.
                parameter.update({"schema": {"type": "string", "format": event}})
            elif parameter["name"] == "after" and name == "listWelcomes":
                parameter["schema"] = {"type": "string", "format": "x-welcome"}
    # A cursor belongs to the tag of its list, too.
    find = story.operations["findClients"][2]
    find["parameters"] = [parameter for parameter in find["parameters"] if parameter["name"] != "tag"]
