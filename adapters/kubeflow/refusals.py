"""What Kubeflow Pipelines, or a proxy before it, refuses with, in words for people."""

from __future__ import annotations

from typing import Any

import httpx

__all__ = ["why_refused"]

_LONGEST = 500


def why_refused(answer: httpx.Response) -> str:
    status = answer.status_code
    said = _said(answer)
    if answer.is_redirect:
        return (
            "Kubeflow Pipelines redirected, most likely to a login page: give a token "
            "(kubeflow.token_file), and the address of its API (kubeflow.url)."
        )
    match status:
        case 401:
            return f"Kubeflow Pipelines refused the token (401): it is missing or expired.{said}"
        case 403:
            return f"Kubeflow Pipelines doesn't allow this to the token's owner (403).{said}"
        case 404:
            url = answer.request.url.copy_with(query=None)
            return f"Kubeflow Pipelines has no such thing at {url} (404).{said}"
        case _:
            return f"Kubeflow Pipelines answered {status}.{said}"


def _said(answer: httpx.Response) -> str:
    """Its own message, where there is one that can be read."""
    try:
        body: Any = answer.json()
    except ValueError:
        return ""
    if not isinstance(body, dict):
        return ""
    message = body.get("error_message") or body.get("message") or body.get("error")
    return f" It said: {message[:_LONGEST]}" if isinstance(message, str) and message else ""
