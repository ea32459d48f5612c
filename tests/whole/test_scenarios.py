"""What registries do to us, by name: what the user sees, and what the store keeps.

Each case is a pull (manifest, config, two layers) from a real HTTP server on 127.0.0.1 that misbehaves in
one way. Whatever it does: a blob that is in the store under its digest has that digest.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sregistry.errors import SregistryError
from sregistry.oci.documents import Digest, MediaType, Platform
from sregistry.oci.json_fields import MAX_DOCUMENT
from sregistry.oci.reference import Reference
from sregistry.registry.fetch import fetch
from sregistry.registry.resolve import resolve
from sregistry.store.store import Store
from tests.support.scripted import TOKEN, Answer, Asked, Reply, Scripted, client, json_errors, ranged

pytestmark = pytest.mark.slow("long generated tables", once=True)

SMALL = random.Random(1).randbytes(1000)
LARGE = random.Random(2).randbytes(400_000)
HALF = len(LARGE) // 2

CONFIG = json.dumps(
    {
        "os": "linux",
        "architecture": "amd64",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [str(Digest.of(b"1")), str(Digest.of(b"2"))]},
    }
).encode()


def descriptor(data: bytes, kind: str, *urls: str) -> dict[str, object]:
    more = {"urls": list(urls)} if urls else {}
    return {"mediaType": kind, "digest": str(Digest.of(data)), "size": len(data), **more}


def manifest(*urls: str) -> bytes:
    layers = [descriptor(SMALL, MediaType.OCI_LAYER), descriptor(LARGE, MediaType.OCI_LAYER, *urls)]
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MediaType.OCI_MANIFEST,
            "config": descriptor(CONFIG, MediaType.OCI_CONFIG),
            "layers": layers,
        }
    ).encode()


MANIFEST = manifest()
TAG = "/v2/demo/image/manifests/1"


def path(data: bytes) -> str:
    return f"/v2/demo/image/blobs/{Digest.of(data)}"


class World:
    """A registry, a storage service that it may redirect to, and a store."""

    def __init__(self, registry: Scripted, storage: Scripted, store: Store) -> None:
        self.registry, self.storage, self.store = registry, storage, store
        self.token: str | None = None
        registry.routes |= {TAG: Reply(200, MANIFEST), path(CONFIG): ranged(CONFIG), path(SMALL): ranged(SMALL), path(LARGE): ranged(LARGE)}
        storage.routes["/data"] = ranged(LARGE)

    def left(self, data: bytes) -> None:
        """Have an earlier run leave a part of the large layer."""
        self.partial.parent.mkdir(parents=True)
        self.partial.write_bytes(data)

    @property
    def partial(self) -> Path:
        digest = Digest.of(LARGE)
        return self.store.root / "ingest" / f"{digest.algorithm}-{digest.hex}.partial"

    def login(self, challenge: str, *tokens: bytes) -> None:
        """Protect all that the registry has: Bearer t, which the realm gives as *tokens* say."""
        for name, answer in list(self.registry.routes.items()):
            self.registry.routes[name] = protected(answer, challenge.replace("REALM", f"{self.registry.url}/token"), "t")
        self.registry.routes["/token"] = [Reply(200, body) for body in tokens or (b'{"token":"t"}',)]

    def pull(self) -> str:
        log = io.StringIO()
        reference = Reference.parse("demo/image:1", registry=self.registry.host, collection="")
        with client(self.registry.host, token=self.token) as it:
            resolved = resolve(it, reference, Platform(architecture="amd64"), self.store)
            for layer in resolved.layers:
                fetch(it, resolved.reference, layer, self.store, log=log)
        return log.getvalue()

    def ranges(self) -> list[str | None]:
        """Return the parts of the large layer that were asked for, from either server."""
        asked = [*self.registry.asked, *self.storage.asked]
        return [item.headers["Range"] for item in asked if item.path.partition("?")[0] in (path(LARGE), "/data")]


def protected(answer: Answer | list[Answer], challenge: str, token: str) -> Answer:
    def reply(asked: Asked) -> Reply:
        if asked.authorization != f"Bearer {token}":
            return Reply(401, json_errors("UNAUTHORIZED"), [("WWW-Authenticate", challenge)])
        assert not isinstance(answer, list)
        return answer if isinstance(answer, Reply) else answer(asked)

    return reply


def once(first: Reply, then: Answer) -> list[Answer]:
    return [first, then]


def cut(asked: Asked) -> Reply:
    """Answer with half of what is asked for, and hang up."""
    whole = ranged(LARGE)(asked)
    return Reply(whole.status, whole.body[: len(whole.body) // 2], whole.headers, length=len(whole.body))


def answers_a_range(status: int, content_range: str) -> Answer:
    """Break off at half, then answer ranges with nonsense; the whole is given where it is asked for."""

    def reply(asked: Asked) -> Reply:
        if asked.headers["Range"] is None:
            first = not answered
            answered.append(True)
            return Reply(200, LARGE[:HALF], length=len(LARGE)) if first else Reply(200, LARGE)
        return Reply(status, LARGE[:10] if status == 206 else b"", [("Content-Range", content_range)] if content_range else [])

    answered: list[bool] = []
    return reply


Prepare = Callable[[World], None]
BLOB, PART, NOTHING = "blob", "part", "nothing"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One way to misbehave.

    Args:
        says: of the error; None where the pull succeeds.
        keeps: of the large layer.
        asks: the ranges of it that are asked for, where that matters.
        logs: of the layer's log.
    """

    name: str
    prepare: Prepare
    says: str | None = None
    keeps: str = BLOB
    asks: tuple[str | None, ...] | None = None
    logs: str = ""
    never: tuple[str, ...] = field(default=(TOKEN,))


def route(name: str, answer: Answer | list[Answer]) -> Prepare:
    def prepare(world: World) -> None:
        world.registry.routes[name] = answer

    return prepare


def large(answer: Answer | list[Answer]) -> Prepare:
    return route(path(LARGE), answer)


def login(challenge: str, *tokens: bytes, token: str | None = None) -> Prepare:
    def prepare(world: World) -> None:
        world.token = token
        world.login(challenge, *tokens)

    return prepare


def left(data: bytes) -> Prepare:
    return lambda world: world.left(data)


def storage(answer: Answer | list[Answer]) -> Prepare:
    """Redirect the large layer to the storage service, by an address that is another each time."""

    def prepare(world: World) -> None:
        number = iter(range(1, 100))
        world.token = TOKEN
        world.login("Bearer realm=REALM")
        location = f"{world.storage.url}/data?signature="
        redirect = protected(
            lambda _: Reply(307, b"", [("Location", f"{location}{next(number)}")]), f'Bearer realm="{world.registry.url}/token"', "t"
        )
        world.registry.routes[path(LARGE)] = redirect
        world.storage.routes["/data"] = answer

    return prepare


def expired(world: World) -> None:
    """The token ends with the manifest; the registry then names a realm that gives nothing."""
    world.login("Bearer realm=REALM", b'{"token":"t"}', b'{"token":"u"}')
    elsewhere = 'Bearer realm="http://127.0.0.1:9/token",service="registry",error="invalid_token"'
    world.registry.routes[path(LARGE)] = protected(ranged(LARGE), elsewhere, "u")
    world.registry.routes[path(SMALL)] = protected(ranged(SMALL), elsewhere, "u")


def refused(token: str | None) -> Prepare:
    """A realm that gives nothing."""

    def prepare(world: World) -> None:
        world.token = token
        world.login("Bearer realm=REALM")
        world.registry.routes["/token"] = Reply(401)

    return prepare


def gone_to(*urls: str) -> Prepare:
    """A foreign layer that the registry lacks."""

    def prepare(world: World) -> None:
        world.token = TOKEN
        addresses = [url.replace("STORAGE", world.storage.url) for url in urls]
        world.registry.routes[TAG] = Reply(200, manifest(*addresses))
        world.registry.routes[path(LARGE)] = Reply(404, json_errors("BLOB_UNKNOWN"))
        world.login("Bearer realm=REALM")

    return prepare


def other_size_in_the_store(world: World) -> None:
    place = world.store.blob(Digest.of(LARGE))
    place.parent.mkdir(parents=True)
    place.write_bytes(LARGE[:-1])


CASES = [
    # documents
    Case(name="all-well", prepare=lambda _: None, asks=(None,)),
    Case(name="manifest-called-html", prepare=route(TAG, Reply(200, MANIFEST, [("Content-Type", "text/html")]))),
    Case(
        name="portal", prepare=route(TAG, Reply(200, b"<html>", [("Content-Type", "text/html")])), says="text/html in place", keeps=NOTHING
    ),
    Case(name="manifest-breaks-off-once", prepare=route(TAG, once(Reply(200, MANIFEST[:9], length=len(MANIFEST)), Reply(200, MANIFEST)))),
    Case(name="manifest-500-once", prepare=route(TAG, once(Reply(500), Reply(200, MANIFEST)))),
    Case(name="manifest-408-once", prepare=route(TAG, once(Reply(408), Reply(200, MANIFEST)))),
    Case(name="manifest-425-once", prepare=route(TAG, once(Reply(425), Reply(200, MANIFEST)))),
    Case(name="manifest-503-for-ever", prepare=route(TAG, Reply(503)), says="has trouble giving demo/image:1.*503", keeps=NOTHING),
    Case(name="rate-limit-once", prepare=route(TAG, once(Reply(429, b"", [("Retry-After", "0")]), Reply(200, MANIFEST)))),
    Case(
        name="rate-limit-for-ever",
        prepare=route(TAG, Reply(429, json_errors("TOOMANYREQUESTS"), [("RateLimit-Limit", "100;w=21600")])),
        says="limits the rate of requests: 100 in 6 h .*try again later or log in",
        keeps=NOTHING,
    ),
    Case(
        name="unknown-image",
        prepare=route(TAG, Reply(404, json_errors("MANIFEST_UNKNOWN"))),
        says="has no image demo/image:1",
        keeps=NOTHING,
    ),
    Case(
        name="no-registry",
        prepare=route(TAG, Reply(404, b"<html>")),
        says="check the name, and that this host is a registry",
        keeps=NOTHING,
    ),
    Case(
        name="manifest-too-large", prepare=route(TAG, Reply(200, b"{" + b" " * MAX_DOCUMENT)), says="more than 4194304 bytes", keeps=NOTHING
    ),
    Case(name="manifest-no-json", prepare=route(TAG, Reply(200, b"{]")), says="no JSON", keeps=NOTHING),
    Case(name="reset-once", prepare=route(TAG, once(Reply(raw=b""), Reply(200, MANIFEST)))),
    Case(name="no-http", prepare=route(TAG, Reply(raw=b"SSH-2.0-x\r\n")), says="speaks no HTTP", keeps=NOTHING),
    Case(
        name="https-only",
        prepare=route(TAG, Reply(400, b"Client sent an HTTP request to an HTTPS server.")),
        says="over plain http .*unset SREGISTRY_NVIDIA_NOHTTPS",
        keeps=NOTHING,
    ),
    Case(
        name="redirect-loop",
        prepare=route(TAG, Reply(302, b"", [("Location", TAG)])),
        says="redirects more often than the limit REDIRECTS",
        keeps=NOTHING,
    ),
    Case(name="redirect-to-ftp", prepare=route(TAG, Reply(302, b"", [("Location", "ftp://h/x")])), says="no web address", keeps=NOTHING),
    Case(name="config-other-bytes", prepare=route(path(CONFIG), Reply(200, CONFIG.swapcase())), says="sends other bytes", keeps=NOTHING),
    Case(
        name="config-missing",
        prepare=route(path(CONFIG), Reply(404, json_errors("BLOB_UNKNOWN"))),
        says="incomplete in the reg",
        keeps=NOTHING,
    ),
    # login
    Case(name="anonymous", prepare=login("Bearer realm=REALM")),
    Case(name="access-token", prepare=login('Bearer realm="REALM"', b'{"access_token":"t","expires_in":600}')),
    Case(name="scope-in-the-realm", prepare=login('bearer Realm="REALM?scope=repository:demo/image:pull"')),
    Case(
        name="several-schemes",
        prepare=login('Negotiate, Basic realm="x", BEARER service=s , scope=repository:demo/image:pull,realm="REALM"'),
    ),
    Case(
        name="login-refused",
        prepare=refused(None),
        says="You must have an Nvidia GPU cloud token to use it.*export SREGISTRY_NVIDIA_TOKEN",
        keeps=NOTHING,
    ),
    Case(
        name="token-refused",
        prepare=refused(TOKEN),
        says="SREGISTRY_NVIDIA_TOKEN",
        keeps=NOTHING,
    ),
    Case(name="realm-without-token", prepare=login("Bearer realm=REALM", b"<html>"), says="answers without a token", keeps=NOTHING),
    Case(name="realm-sends-too-much", prepare=login("Bearer realm=REALM", b" " * (2 << 20)), says="more than 1048576 bytes", keeps=NOTHING),
    Case(
        name="unknown-scheme",
        prepare=route(TAG, Reply(401, b"", [("WWW-Authenticate", "Negotiate")])),
        says="it asks for negotiate",
        keeps=NOTHING,
    ),
    Case(name="realm-unreachable", prepare=login('Bearer realm="http://127.0.0.1:1/"'), says="can't reach 127.0.0.1:1", keeps=NOTHING),
    Case(name="token-expires-in-the-middle", prepare=expired),
    # layers
    Case(
        name="layer-breaks-off-once",
        prepare=large(once(Reply(200, LARGE[:HALF], length=len(LARGE)), ranged(LARGE))),
        asks=(None, f"bytes={HALF}-"),
    ),
    Case(name="layer-breaks-off-always", prepare=large(cut), says="gave up after 3 tries: .*what was received is kept", keeps=PART),
    Case(
        name="no-ranges", prepare=large(once(Reply(200, LARGE[:HALF], length=len(LARGE)), Reply(200, LARGE))), asks=(None, f"bytes={HALF}-")
    ),
    Case(name="range-416", prepare=large(answers_a_range(416, f"bytes */{len(LARGE)}")), asks=(None, f"bytes={HALF}-", None)),
    Case(name="range-elsewhere", prepare=large(answers_a_range(206, f"bytes 0-9/{len(LARGE)}")), asks=(None, f"bytes={HALF}-", None)),
    Case(name="range-nonsense", prepare=large(answers_a_range(206, "pages 1-2")), asks=(None, f"bytes={HALF}-", None)),
    Case(name="range-unsaid", prepare=large(answers_a_range(206, "")), asks=(None, f"bytes={HALF}-", None)),
    Case(
        name="range-past-the-end",
        prepare=large(answers_a_range(206, f"bytes {HALF}-{len(LARGE)}/{len(LARGE)}")),
        asks=(None, f"bytes={HALF}-", None),
    ),
    Case(
        name="size-changed",
        prepare=large(answers_a_range(206, f"bytes {HALF}-{HALF + 9}/{len(LARGE) + 1}")),
        says=f"has {len(LARGE) + 1} bytes, the manifest declares {len(LARGE)}",
        keeps=NOTHING,
    ),
    Case(
        name="ranges-shorter-than-asked",
        prepare=large(
            once(
                Reply(200, LARGE[:HALF], length=len(LARGE)),
                lambda asked: (
                    Reply(206, LARGE[HALF:-9], [("Content-Range", f"bytes {HALF}-{len(LARGE) - 10}/{len(LARGE)}")])
                    if asked.headers["Range"] == f"bytes={HALF}-"
                    else ranged(LARGE)(asked)
                ),
            )
        ),
        asks=(None, f"bytes={HALF}-", f"bytes={len(LARGE) - 9}-"),
    ),
    Case(name="other-bytes", prepare=large(Reply(200, LARGE[:-1] + b"x")), says="sent other bytes", keeps=NOTHING),
    Case(name="too-long", prepare=large(Reply(200, LARGE + b"x")), says=f"more than the {len(LARGE)} bytes", keeps=NOTHING),
    Case(name="too-short", prepare=large(Reply(200, LARGE[:-1])), says="gave up after 3 tries", keeps=PART),
    Case(
        name="layer-missing",
        prepare=large(Reply(404, json_errors("BLOB_UNKNOWN"))),
        says="the image is incomplete in the registry",
        keeps=NOTHING,
    ),
    Case(name="layer-denied", prepare=large(Reply(403, json_errors("DENIED"))), says="403", keeps=NOTHING),
    Case(
        name="silence-once",
        prepare=large(once(Reply(200, LARGE[:HALF], length=len(LARGE), silence=0.8), ranged(LARGE))),
        logs="fell silent",
    ),
    Case(
        name="silence-for-ever",
        prepare=large(Reply(200, LARGE[:HALF], length=len(LARGE), silence=0.8)),
        says="gave up.*fell silent",
        keeps=PART,
    ),
    Case(name="layer-502-once", prepare=large(once(Reply(502), ranged(LARGE)))),
    Case(
        name="trouble-in-the-middle",
        prepare=large([Reply(200, LARGE[:HALF], length=len(LARGE)), *[Reply(503)] * 3, ranged(LARGE)]),
        logs="has trouble",
    ),
    Case(name="chunked", prepare=large(Reply(200, b"%x\r\n%b\r\n0\r\n\r\n" % (len(LARGE), LARGE), [("Transfer-Encoding", "chunked")]))),
    Case(name="said-to-be-encoded", prepare=large(Reply(200, LARGE, [("Content-Encoding", "gzip")]))),
    # storage services
    Case(name="redirect", prepare=storage(ranged(LARGE)), asks=(None, None)),
    Case(
        name="redirect-breaks-off-once",
        prepare=storage(once(Reply(200, LARGE[:HALF], length=len(LARGE)), ranged(LARGE))),
        asks=(None, f"bytes={HALF}-", None, f"bytes={HALF}-"),
    ),
    Case(name="signature-refused", prepare=storage(Reply(403, b"expired")), says="keeps its data, does not give", keeps=NOTHING),
    Case(
        name="storage-wants-a-login",
        prepare=storage(Reply(401, b"", [("WWW-Authenticate", "Basic")])),
        says="keeps its data",
        keeps=NOTHING,
    ),
    Case(name="foreign", prepare=gone_to("STORAGE/data")),
    Case(name="foreign-second-address", prepare=gone_to("ftp://no", "STORAGE/gone", "STORAGE/data")),
    Case(name="foreign-nowhere", prepare=gone_to("STORAGE/gone"), says="404", keeps=NOTHING),
    # what an earlier run left
    Case(name="left-half", prepare=left(LARGE[:HALF]), asks=(f"bytes={HALF}-",), logs="going on after 0.2 MB"),
    Case(name="left-all", prepare=left(LARGE), asks=()),
    Case(name="left-damaged", prepare=left(bytes(HALF)), asks=(f"bytes={HALF}-", None), logs="was damaged; it is fetched anew"),
    Case(name="left-too-much", prepare=left(LARGE + b"x"), asks=(None,)),
    Case(name="another-size-in-the-store", prepare=other_size_in_the_store, asks=(None,)),
]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Scripted() as registry, Scripted() as storage:
        yield World(registry, storage, Store(tmp_path / "store"))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_scenario(world: World, case: Case) -> None:
    case.prepare(world)
    if case.says is None:
        log = world.pull()
        assert case.logs in log
    else:
        with pytest.raises(SregistryError, match=case.says) as caught:
            world.pull()
        said = str(caught.value)
        assert "\n" not in said
        assert not any(secret in said for secret in case.never)
    if case.asks is not None:
        assert world.ranges() == list(case.asks)
    _check(world, case.keeps)
    assert not any(asked.authorization for asked in world.storage.asked)


def _check(world: World, keeps: str) -> None:
    blob = world.store.blob(Digest.of(LARGE))
    kept = world.partial.read_bytes() if world.partial.exists() else None
    assert blob.exists() == (keeps == BLOB)
    assert (kept is not None) == (keeps == PART)
    assert kept is None or (kept and LARGE.startswith(kept))
    for found in (world.store.root / "blobs").rglob("*"):
        assert not found.is_file() or Digest.of(found.read_bytes()).hex == found.name
    assert not list((world.store.root / "locks").glob("*"))


def test_there_are_enough_and_each_has_its_name() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40
