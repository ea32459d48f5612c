"""A registry of tokens: whom it lets in, and what its realm gives."""

from __future__ import annotations

import base64

from tests.support.scripted import Asked, Reply, Scripted, bearer, json_errors

SECRET = "s3cret-key"


def environment(server: Scripted, **more: str) -> dict[str, str]:
    return {"SREGISTRY_NVIDIA_BASE": server.host, "SREGISTRY_NVIDIA_NOHTTPS": "yes", **more}


def guard(server: Scripted, path: str, answer: Reply, tokens: str = "t") -> None:
    """Let only those in who bring the token that the realm gives."""

    def reply(asked: Asked) -> Reply:
        if asked.authorization == f"Bearer {tokens}":
            return answer
        return Reply(401, json_errors("UNAUTHORIZED"), list(bearer(f"{server.url}/token", service="s").items()))

    server.routes[path] = reply


def realm(server: Scripted, *, anonymous: bool = False, password: str = SECRET, username: str = "$oauthtoken") -> None:
    good = "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()

    def reply(asked: Asked) -> Reply:
        allowed = asked.authorization == good or (anonymous and asked.authorization is None)
        return Reply(200, b'{"token": "t"}') if allowed else Reply(401, json_errors("UNAUTHORIZED", f"no {asked.authorization}"))

    server.routes["/token"] = reply
