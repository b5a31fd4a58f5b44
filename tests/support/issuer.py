"""An OpenID Connect issuer whose keys and tokens a test makes."""

from __future__ import annotations

import base64
import json
import ssl
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.small_server import Answer, Asked, SmallServer

AUDIENCE = "understudy"


class Issuer(SmallServer):
    """With one RSA key, `first`; `rotate` makes another one, and forgets those before."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(self._documents, tls)
        self.keys: dict[str, Any] = {}
        self.published: list[dict[str, Any]] = []
        self.claimed_issuer: str | None = None
        self.rotate("first")

    def rotate(self, key_id: str, algorithm: str = "RS256") -> None:
        if algorithm.startswith("ES"):
            key: Any = ec.generate_private_key(ec.SECP256R1())
            shown = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key.public_key()))
        else:
            key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            shown = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
        self.keys[key_id] = key
        self.published = [{**shown, "kid": key_id, "use": "sig", "alg": algorithm}]

    def token(self, key_id: str = "first", algorithm: str = "RS256", **claims: Any) -> str:
        """A good one, but for what is given; a claim that is `None` is left out."""
        given = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "alice",
            "exp": time.time() + 60,
            "team": "ours",
            **claims,
        }
        kept = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(kept, self.keys[key_id], algorithm, headers={"kid": key_id})

    def forged(self, head: dict[str, Any], key: bytes = b"", **claims: Any) -> str:
        """With a head that no library would write, and HS256's or no signature."""
        body = {"iss": self.url, "aud": AUDIENCE, "sub": "m", "exp": time.time() + 60, **claims}
        parts = [_encoded(json.dumps(part).encode()) for part in (head, body)]
        signed = ".".join(parts).encode()
        signature = jwt.algorithms.HMACAlgorithm("sha256").sign(signed, key) if key else b""
        return f"{signed.decode()}.{_encoded(signature)}"

    def _documents(self, asked: Asked) -> Answer:
        if asked.path == "/.well-known/openid-configuration":
            issuer = self.claimed_issuer or self.url
            return 200, {"issuer": issuer, "jwks_uri": f"{self.url}/keys"}
        if asked.path == "/keys":
            return 200, {"keys": self.published}
        return 404, {}

    @property
    def fetches(self) -> int:
        return sum(asked.path == "/keys" for asked in self.asked)


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
