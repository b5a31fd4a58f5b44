"""The port `TokenVerifier`: only the issuer's own tokens, for us, in time, are believed."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from adapters.oidc import OidcVerifier
from gateway.errors import Unauthenticated, UpstreamUnavailable
from gateway.settings import OidcSettings
from tests.support.inprocess import until
from tests.support.issuer import AUDIENCE, Issuer

pytestmark = pytest.mark.anyio


def settings_for(issuer: Issuer, **wanted: Any) -> OidcSettings:
    usual = {"refetch_seconds": 0.2, "leeway_seconds": 5}
    return OidcSettings(issuer=issuer.url, audience=[AUDIENCE, "other"], **(usual | wanted))


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as started:
        yield started


@pytest.fixture
async def verifier(issuer) -> AsyncIterator[OidcVerifier]:
    made = OidcVerifier(settings_for(issuer))
    yield made
    await made.aclose()


async def test_a_good_token_is_its_claims(issuer, verifier):
    """Also where it is for several, one of which we are."""
    claims = await verifier.verify(issuer.token(aud=["someone", "other"]))
    assert (claims["sub"], claims["team"]) == ("alice", "ours")


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"exp": 1}, "expired"),
        ({"exp": None}, "lacks"),
        ({"aud": "another"}, "not meant"),
        ({"aud": None}, ""),
        ({"iss": "https://another"}, "another issuer"),
        ({"iss": None}, ""),
        ({"nbf": time.time() + 3600}, "not valid yet"),
        ({"exp": "soon"}, ""),
    ],
)
async def test_a_token_that_isnt_for_us_now_is_refused(issuer, verifier, claims, said):
    """And the refusal says why, without repeating any of it."""
    with pytest.raises(Unauthenticated) as raised:
        await verifier.verify(issuer.token(**claims))
    assert said in raised.value.message


async def test_clocks_may_differ_by_the_leeway(issuer, verifier):
    """Five seconds here."""
    assert await verifier.verify(issuer.token(exp=time.time() - 3, nbf=time.time() + 3))
    with pytest.raises(Unauthenticated):
        await verifier.verify(issuer.token(exp=time.time() - 8))


async def test_forged_signatures_are_refused(issuer, verifier):
    """None at all, the public key as a shared secret, another key, a changed body, junk."""
    public = issuer.keys["first"].public_key()
    pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    good = issuer.token()
    head, body, signature = good.split(".")
    other = Issuer()
    other.port = issuer.port
    forged = [
        issuer.forged({"alg": "none"}),
        issuer.forged({"alg": "None", "kid": "first"}),
        issuer.forged({"alg": "HS256", "kid": "first"}, pem),
        issuer.forged({"alg": "RS256", "kid": "first"}, pem),
        issuer.forged({"alg": "ES256", "kid": "first"}, pem),
        issuer.forged({"alg": "PS256", "kid": "first"}, pem),
        issuer.forged({"alg": ["RS256"], "kid": "first"}, pem),
        issuer.forged({"alg": "RS256", "kid": {"a": 1}}, pem),
        issuer.forged({"kid": "first"}, pem),
        other.token(),
        f"{head}.{body}A.{signature}",
        f"{head}.{body}.",
        f"{head}.{body}",
        "junk",
        "a.b.c",
        "..",
    ]
    for token in forged:
        with pytest.raises(Unauthenticated):
            await verifier.verify(token)


async def test_deep_heads_are_refused(issuer, verifier):
    """What would exhaust a parser's stack is no token."""
    nested: Any = []
    for _ in range(500):
        nested = [nested]
    with pytest.raises(Unauthenticated):
        await verifier.verify(issuer.forged({"alg": "RS256", "kid": "x", "deep": nested}, b"k"))


async def test_keys_for_encryption_and_shared_secrets_verify_nothing(issuer, verifier):
    """Though the issuer publishes them."""
    issuer.published = [{**issuer.published[0], "use": "enc"}, {"kty": "oct", "k": "c2VjcmV0"}]
    with pytest.raises(Unauthenticated):
        await verifier.verify(issuer.token())


async def test_a_rotated_key_is_fetched_when_a_token_names_it(issuer, verifier):
    """At once, and what was signed with the one before is no longer good."""
    old = issuer.token()
    await verifier.verify(old)
    issuer.rotate("second", "ES256")
    await asyncio.sleep(0.25)
    assert await verifier.verify(issuer.token("second", "ES256"))
    with pytest.raises(Unauthenticated):
        await verifier.verify(old)


@pytest.mark.alone
async def test_unknown_keys_dont_make_a_flood_of_fetches(issuer):
    """Any number of them in the shortest time between two fetches make one."""
    verifier = OidcVerifier(settings_for(issuer, refetch_seconds=2))
    await verifier.verify(issuer.token())
    issuer.keys["made-up"] = issuer.keys["first"]
    await asyncio.sleep(2.1)
    before = issuer.fetches
    tokens = [issuer.token("made-up", sub=str(number)) for number in range(30)]
    outcomes = await asyncio.gather(*map(verifier.verify, tokens), return_exceptions=True)
    assert all(isinstance(one, Unauthenticated) for one in outcomes)
    assert issuer.fetches == before + 1
    await verifier.aclose()


async def test_many_at_once_fetch_the_keys_once(issuer, verifier):
    """When nothing is known yet."""
    await asyncio.gather(*(verifier.verify(issuer.token(sub=str(one))) for one in range(20)))
    assert issuer.fetches == 1


async def test_an_issuer_that_is_away_at_the_start_is_waited_for(issuer, verifier):
    """503 till then, not 401: the token may be good."""
    issuer.down = True
    await verifier.start()
    with pytest.raises(UpstreamUnavailable) as raised:
        await verifier.verify(issuer.token())
    assert raised.value.code == "identity_unavailable"
    assert raised.value.retry_after
    issuer.down = False
    await asyncio.sleep(0.25)
    assert await verifier.verify(issuer.token())


async def test_known_keys_go_on_while_the_issuer_is_away(issuer):
    """Also past the time after which they are fetched anew; a new key is 503."""
    verifier = OidcVerifier(settings_for(issuer, keys_seconds=0.1))
    await verifier.start()
    issuer.down = True
    issuer.rotate("second")
    for _ in range(3):
        await asyncio.sleep(0.25)
        assert await verifier.verify(issuer.token("first"))
    await asyncio.sleep(0.25)
    with pytest.raises(UpstreamUnavailable):
        await verifier.verify(issuer.token("second"))
    await verifier.aclose()


async def test_keys_are_fetched_again_after_their_time(issuer):
    """In the background: no request waits for it."""
    verifier = OidcVerifier(settings_for(issuer, keys_seconds=0.1))
    await verifier.start()
    await asyncio.sleep(0.25)
    await verifier.verify(issuer.token())
    await until(lambda: issuer.fetches == 2, "the second fetch")
    await verifier.aclose()


async def test_another_issuers_document_is_not_believed(issuer, verifier):
    """The discovery document says who it is of."""
    issuer.claimed_issuer = "https://another"
    with pytest.raises(UpstreamUnavailable):
        await verifier.verify(issuer.token())


async def test_keys_may_have_an_address_of_their_own(issuer):
    """For issuers without a discovery document."""
    verifier = OidcVerifier(settings_for(issuer, jwks_url=f"{issuer.url}/keys"))
    assert await verifier.verify(issuer.token())
    assert [asked.path for asked in issuer.asked] == ["/keys"]
    await verifier.aclose()


@pytest.mark.parametrize("document", [b"", b"[]", b"{", b"[" * 100_000, b'{"keys": 1}'])
async def test_junk_instead_of_keys_is_an_issuer_that_is_away(issuer, verifier, document):
    """Nothing of it crosses the gateway as an error of its own."""
    issuer._documents = lambda _: (200, document)
    issuer._answer = issuer._documents
    with pytest.raises(UpstreamUnavailable):
        await verifier.verify(issuer.token())


async def test_only_the_algorithms_of_the_settings_are_taken(issuer):
    """A good signature of another kind isn't enough."""
    issuer.rotate("second", "ES256")
    verifier = OidcVerifier(settings_for(issuer, algorithms=["RS256"]))
    with pytest.raises(Unauthenticated):
        await verifier.verify(issuer.token("second", "ES256"))
    await verifier.aclose()


async def test_a_private_authority_is_needed_where_the_issuer_has_one(private_ca, tmp_path):
    """With it the issuer is reached, without it it isn't: TLS is always verified."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    private_ca.issue_cert("127.0.0.1").configure_cert(context)
    file = tmp_path / "ca.pem"
    private_ca.cert_pem.write_to_path(file)
    async with Issuer(context) as issuer:
        with_it = OidcVerifier(settings_for(issuer, ca_file=str(file)))
        assert await with_it.verify(issuer.token())
        without = OidcVerifier(settings_for(issuer))
        with pytest.raises(UpstreamUnavailable):
            await without.verify(issuer.token())
        await with_it.aclose()
        await without.aclose()
