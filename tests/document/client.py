"""What a Python caller writes on the client that openapi-python-client makes from the document. It is type-checked, not run."""

from uuid import UUID

from gateway_client import AuthenticatedClient
from gateway_client.api.managing_identities import register_client
from gateway_client.models import ClientHandleTakenProblem, NewClient, RegisteredClient

api = AuthenticatedClient(base_url="http://127.0.0.1:8080", token="token")


def register(app_id: UUID, client_handle: str) -> UUID:
    """Registers a client, or finds the one that has the handle."""
    answer = register_client.sync(app_id, client=api, body=NewClient(client_handle=client_handle))
    if isinstance(answer, RegisteredClient):
        return answer.client_id
    if isinstance(answer, ClientHandleTakenProblem):
        return UUID(answer.client_id)
    raise RuntimeError("no answer" if answer is None else answer.detail)
