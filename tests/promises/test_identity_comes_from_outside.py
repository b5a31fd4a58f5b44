"""Tokens of an issuer or of the cluster, and a trusted proxy's headers, become projects and scopes;
what they don't say nobody else can add."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import pytest

from gateway.errors import PermissionDenied, Unauthenticated
from gateway.identity.authenticator import Headers
from gateway.identity.kubernetes import KubernetesTokens
from gateway.identity.oidc import OidcTokens
from gateway.identity.principal import Principal
from gateway.identity.proxy import ProxyAuthenticator
from gateway.identity.scopes import ORDINARY
from gateway.identity.tokens import TokenAuthenticator
from gateway.ports import ReviewedUser
from gateway.settings import KubernetesSettings, OidcSettings, UpstreamHeaderSettings
from tests.support.inprocess import InProcessGateway
from tests.support.issuer import AUDIENCE, Issuer
from tests.support.keys import bearer
from tests.support.small_server import SmallServer

pytestmark = pytest.mark.anyio

CHAT = {"model": "fake-chat", "messages": [{"role": "user", "content": "Hello"}]}
ACCOUNT = "system:serviceaccount:team-a:builder"


class Vouching:
    """A verifier and a reviewer that believes everything; it counts."""

    def __init__(self, claims: Mapping[str, Any], user: ReviewedUser | None = None) -> None:
        self.claims = {"exp": time.time() + 3600, "sub": "alice", **claims}
        self.user = user or ReviewedUser(username="alice")
        self.asked = 0

    async def start(self) -> None:
        pass

    async def verify(self, _: str) -> Mapping[str, Any]:
        self.asked += 1
        return self.claims

    async def review(self, _: str) -> ReviewedUser:
        self.asked += 1
        return self.user

    async def aclose(self) -> None:
        pass


def jwt(claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"head.{payload}.signature"


async def by_claims(
    settings: OidcSettings, claims: Mapping[str, Any], project: str | None = None
) -> Principal:
    tokens = TokenAuthenticator(OidcTokens(Vouching(claims), settings), entries=1)
    headers: Headers = [(b"authorization", b"Bearer t")]
    if project is not None:
        headers = [*headers, (b"openai-project", project.encode())]
    return await tokens.authenticate(headers, None)


# -------------------------------------------------------------------------------------- claims


@pytest.mark.parametrize(
    ("settings", "claims", "project"),
    [
        ({"project_claim": "team"}, {"team": "a"}, "a"),
        ({"project_claim": "team"}, {"team": ["a"]}, "a"),
        ({"project_claim": "team"}, {"team": ["a", "b"]}, "a"),
        ({"project_claim": "org.team"}, {"org": {"team": "a"}}, "a"),
        ({"project_claim": "x.y/team"}, {"x.y/team": "a"}, "a"),
        ({"project_claim": "g", "projects": {"/b": "b", "/a": "a"}}, {"g": ["/a", "/b"]}, "b"),
        ({"project_claim": "g", "projects": {"/a": "a"}}, {"g": ["/c", "/a"]}, "a"),
        ({"project_claim": "team", "default_project": "all"}, {}, "all"),
        ({"default_project": "all"}, {"team": "a"}, "all"),
        ({"project_claim": "g", "projects": {"/a": "a"}, "default_project": "d"}, {"g": "x"}, "d"),
    ],
)
async def test_a_claim_becomes_a_project(settings, claims, project):
    """As it is, by a mapping, from within another claim, or by default."""
    assert (await by_claims(OidcSettings(**settings), claims)).project == project


@pytest.mark.parametrize(
    "claims",
    [
        *({}, {"team": []}, {"team": 5}, {"team": {"a": "b"}}, {"team": ""}, {"team": "a\nb"}),
        *({"team": "x" * 121}, {"team": "../a"}, {"team": None}),
    ],
)
async def test_without_a_project_nobody_comes_in(claims):
    """Nor with one whose name can't be one."""
    with pytest.raises(PermissionDenied) as raised:
        await by_claims(OidcSettings(project_claim="team"), claims)
    assert raised.value.code == "project_not_allowed"


async def test_who_belongs_to_several_projects_chooses_one_with_openais_header():
    """And only one of those."""
    settings, claims = OidcSettings(project_claim="team"), {"team": ["a", "b"]}
    assert (await by_claims(settings, claims, "b")).project == "b"
    with pytest.raises(PermissionDenied):
        await by_claims(settings, claims, "c")
    assert (await by_claims(settings, {"team": "a"}, "proj_of_openai")).project == "a"


async def test_roles_become_scopes():
    """All scopes of all roles that are known; else the default ones."""
    settings = OidcSettings(
        default_project="p",
        roles_claim="realm_access.roles",
        roles={"chat": ["inference"], "ops": ["admin", "usage.read"]},
        default_scopes=["models.read"],
    )

    async def scopes(*roles: str) -> frozenset[str] | None:
        return (await by_claims(settings, {"realm_access": {"roles": list(roles)}})).scopes

    assert await scopes("chat", "other") == {"inference"}
    assert await scopes("chat", "ops") == {"inference", "admin", "usage.read"}
    assert await scopes("other") == {"models.read"}
    usual = await by_claims(OidcSettings(default_project="p"), {"roles": ["admin"]})
    assert usual.scopes == ORDINARY


@pytest.mark.parametrize("subject", [None, 5, "", ["a"]])
async def test_a_token_of_nobody_is_refused(subject):
    """It must say whose it is."""
    with pytest.raises(Unauthenticated):
        await by_claims(OidcSettings(default_project="p"), {"sub": subject})


# ------------------------------------------------------------------------------------- cluster


@pytest.mark.parametrize(
    ("settings", "username", "groups", "project"),
    [
        ({}, ACCOUNT, [], "team-a"),
        ({"namespaces": {"team-a": "a"}}, ACCOUNT, [], "a"),
        ({"groups": {"devs": "d", "ops": "o"}}, "alice", ["ops", "devs"], "d"),
        ({"groups": {"devs": "d"}}, "alice", ["system:authenticated", "devs"], "d"),
    ],
)
async def test_namespaces_and_groups_become_projects(settings, username, groups, project):
    """Service accounts by their namespaces, users by their groups."""
    vouching = Vouching({}, ReviewedUser(username=username, groups=groups))
    proven = await KubernetesTokens(vouching, KubernetesSettings(**settings)).prove("t")
    [principal] = proven.principals[:1]
    assert principal.project == project
    assert principal.subject == username
    assert principal.scopes == ORDINARY


@pytest.mark.parametrize(
    ("settings", "username", "groups"),
    [
        ({"namespaces": {"team-b": "b"}}, ACCOUNT, []),
        ({"namespaces": {"team-b": "b"}, "groups": {"g": "p"}}, ACCOUNT, ["g"]),
        ({}, "alice", ["system:authenticated"]),
        ({"groups": {"devs": "d"}}, "alice", ["ops"]),
        ({}, "system:node:one", ["system:nodes"]),
    ],
)
async def test_users_without_a_project_are_refused(settings, username, groups):
    """403: they are known, and belong nowhere."""
    vouching = Vouching({}, ReviewedUser(username=username, groups=groups))
    with pytest.raises(PermissionDenied):
        await KubernetesTokens(vouching, KubernetesSettings(**settings)).prove("t")


async def test_groups_and_accounts_become_scopes():
    """By the groups of either, or by an account's own name."""
    settings = KubernetesSettings(
        roles={ACCOUNT: ["admin"], "system:serviceaccounts:team-a": ["files"]}
    )
    groups = ["system:serviceaccounts", "system:serviceaccounts:team-a"]
    vouching = Vouching({}, ReviewedUser(username=ACCOUNT, groups=groups))
    proven = await KubernetesTokens(vouching, settings).prove("t")
    assert proven.principals[0].scopes == {"admin", "files"}


@pytest.mark.parametrize(
    ("token", "seconds"),
    [
        (jwt({"exp": 4e9}), 60),
        (jwt({"exp": 1}), 0),
        (jwt({}), 60),
        (jwt({"exp": "soon"}), 60),
        (jwt([]), 60),
        ("sha256~opaque", 60),
        ("a.!.c", 60),
        ("a.\u00e9.c", 60),
    ],
)
async def test_a_clusters_token_is_gone_by_no_longer_than_it_says(token, seconds):
    """However long answers of the cluster are remembered."""
    settings = KubernetesSettings(cache_seconds=60)
    vouching = Vouching({}, ReviewedUser(username=ACCOUNT))
    proven = await KubernetesTokens(vouching, settings).prove(token)
    assert proven.seconds == seconds
    soon = await KubernetesTokens(vouching, settings).prove(jwt({"exp": time.time() + 20}))
    assert 10 < soon.seconds <= 20


async def test_a_token_is_asked_about_once_in_a_while():
    """Whatever project its caller asks for with it; another token is asked about anew."""
    vouching = Vouching({"team": ["a", "b"]})
    known = TokenAuthenticator(OidcTokens(vouching, OidcSettings(project_claim="team")), entries=10)
    one: Headers = [(b"authorization", b"Bearer one")]
    other: Headers = [*one, (b"openai-project", b"b")]
    assert known.recall(one, None) is None
    assert (await known.authenticate(one, None)).project == "a"
    assert (await known.authenticate(other, None)).project == "b"
    assert known.recall(one, None).project == "a"
    assert known.recall(other, None).project == "b"
    for number in range(50):
        with pytest.raises(PermissionDenied):
            await known.authenticate([*one, (b"openai-project", b"%d" % number)], None)
    assert known.recall(one, None).project == "a"
    assert vouching.asked == 1
    assert known.recall([(b"authorization", b"Bearer two")], None) is None


async def test_what_is_remembered_is_bounded():
    """Junk displaces nothing but junk, and good tokens the oldest ones."""
    vouching = Vouching({})
    known = TokenAuthenticator(OidcTokens(vouching, OidcSettings(default_project="p")), entries=3)

    def headers(number: int) -> Headers:
        return [(b"authorization", b"Bearer %d" % number)]

    for number in range(10):
        await known.authenticate(headers(number), None)
    assert len(known._good) == 3
    assert known.recall(headers(9), None) is not None
    assert known.recall(headers(0), None) is None
    vouching.claims = {}
    for number in range(100, 120):
        with pytest.raises(Unauthenticated):
            await known.authenticate(headers(number), None)
    assert len(known._bad) == 3
    assert known.recall(headers(9), None) is not None
    assert not known._asking


async def test_a_flood_of_unknown_tokens_waits_in_a_bounded_line():
    """Those that find it full are told to come again, and known tokens pass it by."""
    held = asyncio.Event()
    vouching = Vouching({})
    believed = vouching.verify

    async def verify(token: str) -> Mapping[str, Any]:
        if token != "known":
            await held.wait()
        return await believed(token)

    vouching.verify = verify
    known = TokenAuthenticator(OidcTokens(vouching, OidcSettings(default_project="p")), entries=9)
    headers: Headers = [(b"authorization", b"Bearer known")]
    await known.authenticate(headers, None)
    flood = [
        asyncio.create_task(known.authenticate([(b"authorization", b"Bearer %d" % one)], None))
        for one in range(300)
    ]
    await asyncio.sleep(0.05)
    refused = [task.exception() for task in flood if task.done()]
    assert len(refused) == 300 - 256
    assert {error.code for error in refused} == {"identity_unavailable"}
    assert vouching.asked == 1
    assert known.recall(headers, None) is not None
    held.set()
    await asyncio.gather(*flood, return_exceptions=True)
    assert vouching.asked == 1 + 256
    assert not known._asking


async def test_a_caller_that_leaves_takes_nobody_with_it():
    """Others wait for the same token."""
    held = asyncio.Event()
    vouching = Vouching({})
    believed = vouching.verify

    async def verify(token: str) -> Mapping[str, Any]:
        await held.wait()
        return await believed(token)

    vouching.verify = verify
    known = TokenAuthenticator(OidcTokens(vouching, OidcSettings(default_project="p")), entries=9)
    headers: Headers = [(b"authorization", b"Bearer t")]
    leaving, staying = (asyncio.create_task(known.authenticate(headers, None)) for _ in "ab")
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.wait([leaving])
    held.set()
    assert (await staying).subject == "alice"
    assert vouching.asked == 1


# --------------------------------------------------------------------------------------- proxy


PROXY = UpstreamHeaderSettings(trusted=["10.1.0.0/16", "fd00::/8", "192.168.7.7"])
USER = (b"x-remote-user", b"alice")
PROJECT = (b"x-remote-project", b"ours")


def by_headers(
    *headers: tuple[bytes, bytes], host: str = "10.1.2.3", **settings: Any
) -> Principal | None:
    wanted = UpstreamHeaderSettings(trusted=PROXY.trusted, **settings)
    return ProxyAuthenticator(wanted).recall(list(headers), (host, 5))


def test_the_proxys_headers_say_who_it_is():
    """User, project, and scopes, of which those that aren't ours are passed over."""
    principal = by_headers(USER, PROJECT)
    assert principal == Principal(project="ours", subject="alice", scopes=ORDINARY)
    scoped = by_headers(USER, PROJECT, (b"x-remote-scopes", b"openid files,admin  other"))
    assert scoped.scopes == {"files", "admin"}
    assert by_headers(USER, default_project="p", default_scopes=["files"]) == Principal(
        project="p", subject="alice", scopes=frozenset({"files"})
    )
    named = by_headers((b"x-user", b"bob"), PROJECT, user_header="X-User")
    assert named.subject == "bob"


@pytest.mark.parametrize("host", ["10.1.255.255", "fd12::1", "192.168.7.7", "::ffff:10.1.0.9"])
def test_the_proxys_addresses_are_trusted(host):
    """Also where the system shows IPv4 as IPv6."""
    assert by_headers(USER, PROJECT, host=host).subject == "alice"


@pytest.mark.parametrize(
    "host", ["10.2.0.1", "127.0.0.1", "192.168.7.8", "::1", "::ffff:10.2.0.1", "", "unix", "10.1"]
)
def test_other_addresses_are_refused(host):
    """Whatever they say, and whomever they claim to speak for."""
    spoofed = [(b"x-forwarded-for", b"10.1.0.1"), (b"forwarded", b"for=10.1.0.1")]
    with pytest.raises(PermissionDenied) as raised:
        by_headers(USER, PROJECT, *spoofed, (b"x-real-ip", b"10.1.0.1"), host=host)
    assert raised.value.code == "proxy_not_trusted"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [PROJECT],
        [(b"x-remote-user", b""), PROJECT],
        [(b"x-remote-user", b"  "), PROJECT],
        [USER, (b"x-remote-user", b"root"), PROJECT],
        [USER, PROJECT, (b"x-remote-project", b"theirs")],
        [USER, PROJECT, (b"x-remote-scopes", b"files"), (b"x-remote-scopes", b"admin")],
        [(b"x-remote-user", b"a\x00b"), PROJECT],
        [(b"x-remote-user", b"\xff"), PROJECT],
        [(b"x-remote-user", b"a" * 201), PROJECT],
    ],
)
def test_headers_that_are_missing_doubled_or_broken_are_refused(headers):
    """A second one may have come past the proxy: neither is believed."""
    with pytest.raises(Unauthenticated):
        by_headers(*headers)


def test_a_proxy_that_names_no_project_lets_nobody_in():
    """Unless there is a default; and a name must be one."""
    for headers in ([USER], [USER, (b"x-remote-project", b"a b")]):
        with pytest.raises(PermissionDenied):
            by_headers(*headers)


# ------------------------------------------------------------------------------- over the wire


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as started:
        yield started


async def statuses(gateway: InProcessGateway, *headers: Mapping[str, str]) -> list[int]:
    async with gateway.client() as client:
        return [
            (await client.post("/v1/chat/completions", json=CHAT, headers=one)).status_code
            for one in headers
        ]


async def test_an_issuers_tokens_open_the_gateway(issuer, upstream, tmp_path):
    """From end to end; the token stays here."""
    oidc = {
        "issuer": issuer.url,
        "audience": [AUDIENCE],
        "project_claim": "team",
        "roles_claim": "roles",
        "roles": {"reader": ["models.read"]},
    }
    async with InProcessGateway(
        discover=[upstream.url],
        models=["fake-chat"],
        data_dir=str(tmp_path),
        identity={"mode": "oidc", "oidc": oidc},
    ) as gateway:
        good = issuer.token()
        found = await statuses(
            gateway,
            bearer(good),
            bearer(issuer.token(roles=["reader"])),
            bearer(issuer.token(team=None)),
            bearer(issuer.token(aud="another")),
            bearer(issuer.forged({"alg": "none"}, team="ours")),
            bearer("sk-us-" + "x" * 43),
            {},
        )
        assert found == [200, 403, 403, 401, 401, 401, 401]
        [asked] = upstream.requests_to("/v1/chat/completions")[-1:]
        assert "authorization" not in {name.lower() for name in asked.headers}
        span = await gateway.span("POST /v1/chat/completions")
        assert good not in "".join(one.to_json() for one in gateway.spans())
        assert span.attributes is not None


async def test_a_clusters_tokens_open_the_gateway(upstream, tmp_path):
    """Reviewed once, and remembered."""
    own = tmp_path / "token"
    own.write_text("own")
    known = {"authenticated": True, "user": {"username": ACCOUNT, "groups": []}}

    def answer(asked: Any) -> tuple[int, Any]:
        good = asked.json["spec"]["token"] == "good"
        return 201, {"status": known if good else {"authenticated": False}}

    async with SmallServer(answer) as server:
        kubernetes = {"api_url": server.url, "token_file": str(own), "ca_file": None}
        async with InProcessGateway(
            discover=[upstream.url],
            models=["fake-chat"],
            data_dir=str(tmp_path),
            identity={"mode": "kubernetes", "kubernetes": kubernetes},
        ) as gateway:
            assert await statuses(gateway, bearer("good"), bearer("bad"), {}) == [200, 401, 401]
            assert await statuses(gateway, bearer("good"), bearer("bad")) == [200, 401]
            assert len(server.asked) == 2
            server.down = True
            assert await statuses(gateway, bearer("good"), bearer("new")) == [200, 503]


async def test_a_proxys_headers_open_the_gateway_and_go_no_further(upstream, tmp_path):
    """From its address; no header says where a request comes from."""
    headers = {"x-remote-user": "alice", "x-remote-project": "ours"}
    backend = {"url": upstream.url}
    for trusted, status in (("127.0.0.0/8", 200), ("10.0.0.0/8", 403)):
        async with InProcessGateway(
            discover=[backend],
            models=["fake-chat"],
            data_dir=str(tmp_path),
            identity={"mode": "upstream_header", "upstream_header": {"trusted": [trusted]}},
        ) as gateway:
            spoofed = {**headers, "x-forwarded-for": "10.0.0.1", "forwarded": "for=10.0.0.1"}
            assert await statuses(gateway, spoofed) == [status]
    [asked] = upstream.requests_to("/v1/chat/completions")[-1:]
    assert not {name.lower() for name in asked.headers} & {*headers, "x-forwarded-for"}


async def test_without_an_identity_everybody_may_do_everything(upstream):
    """On this machine, and nothing is asked: any key will do."""
    async with InProcessGateway(discover=[upstream.url], models=["fake-chat"]) as gateway:
        assert await statuses(gateway, {}, bearer("anything")) == [200, 200]
        async with httpx.AsyncClient(base_url=gateway.root_url, timeout=30) as client:
            assert (await client.get("/v1/providers")).status_code == 200
