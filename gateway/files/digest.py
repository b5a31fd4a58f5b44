"""The size and the digests of content that passes through."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing

from gateway.errors import InvalidRequest

__all__ = ["Digest"]

_LARGE_BYTES = 256 * 1024
"""Up to this, hashing a block takes less long than handing it to a thread."""


class Digest:
    """``size`` in bytes and ``sha256`` in hexadecimal of what :meth:`over` has let through.

    ``with_md5`` adds ``md5``, for callers who check with it; raises ``InvalidRequest`` where the
    platform refuses that algorithm.
    """

    def __init__(self, *, with_md5: bool = False) -> None:
        self.size = 0
        self._hashes = [hashlib.sha256()]
        if with_md5:
            try:
                self._hashes.append(hashlib.md5(usedforsecurity=False))
            except ValueError:
                raise InvalidRequest(
                    "This platform does not compute md5 (FIPS). Leave 'md5' out.",
                    param="md5",
                    code="invalid_value",
                ) from None

    @property
    def sha256(self) -> str:
        return self._hashes[0].hexdigest()

    @property
    def md5(self) -> str | None:
        return self._hashes[1].hexdigest() if len(self._hashes) > 1 else None

    async def over(self, blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """The same blocks."""
        async with aclosing(blocks):
            async for block in blocks:
                self.size += len(block)
                if len(block) > _LARGE_BYTES:
                    await asyncio.to_thread(self._update, block)
                else:
                    self._update(block)
                yield block

    def _update(self, block: bytes) -> None:
        for one in self._hashes:
            one.update(block)
