"""What the gateway and a converter process say to each other over the process's pipes.

A frame is a length of four bytes and that many bytes of MessagePack. The gateway sends ``Start``
once and then one job at a time; the process answers ``Ready``, and to each job some ``Chunks`` and
then ``Done``, or ``Failed``.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

import msgspec
from msgspec import Struct

from adapters.docling.engine import EngineOptions
from gateway.ports import Chunk, ChunkSizes, FailureCode

__all__ = [
    "CHUNKS_IN_A_FRAME",
    "HEADER",
    "Answer",
    "ChunkJob",
    "Chunks",
    "ConvertJob",
    "Done",
    "Failed",
    "Job",
    "Ready",
    "Request",
    "Start",
    "frame",
    "parse_answer",
    "parse_request",
]

HEADER = struct.Struct(">I")
CHUNKS_IN_A_FRAME = 64
"""So that decoding a frame holds up the event loop for well under a millisecond."""


class Start(Struct, frozen=True, tag="start"):
    options: EngineOptions


class ConvertJob(Struct, frozen=True, tag="convert"):
    """Make JSON of ``source`` and write it to ``into``."""

    source: str
    filename: str
    into: str


class ChunkJob(Struct, frozen=True, tag="chunk"):
    document: str
    sizes: ChunkSizes


class Ready(Struct, frozen=True, tag="ready"):
    pass


class Chunks(Struct, frozen=True, tag="chunks"):
    chunks: list[Chunk]


class Done(Struct, frozen=True, tag="done"):
    pass


class Failed(Struct, frozen=True, tag="failed"):
    """A ``ConversionFailed``. ``broken`` asks for another process in place of this one."""

    code: FailureCode
    message: str
    transient: bool = False
    broken: bool = False


Job: TypeAlias = ConvertJob | ChunkJob
Request: TypeAlias = Start | ConvertJob | ChunkJob
Answer: TypeAlias = Ready | Chunks | Done | Failed

_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
_encoder = msgspec.msgpack.Encoder()


def frame(message: Request | Answer) -> bytes:
    body = _encoder.encode(message)
    return HEADER.pack(len(body)) + body


def parse_request(body: bytes) -> Request:
    return _requests.decode(body)


def parse_answer(body: bytes) -> Answer:
    return _answers.decode(body)
