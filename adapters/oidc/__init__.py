"""Tokens of an OpenID Connect issuer: the ``TokenVerifier`` port."""

from adapters.oidc.verifier import OidcVerifier

__all__ = ["OidcVerifier"]
