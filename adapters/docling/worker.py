"""A converter process: ``python -m adapters.docling.worker``, started by the pool alone.

It reads jobs from its standard input and answers on its standard output, one at a time. It says
nothing else anywhere, because anything else could quote a document. It ends when its parent does.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import queue
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from adapters.docling import protocol
from adapters.docling.engine import Engine, EngineOptions
from adapters.docling.protocol import ChunkJob, Chunks, ConvertJob, Done, Failed, Ready, Start
from gateway.ports import ConversionFailed

__all__ = ["main"]

_PR_SET_PDEATHSIG = 1
_SPARE_BYTES = 64 * 1024 * 1024
"""So much less than the limit that running over it is told by us, not by the watcher outside."""


def main() -> None:
    """Never returns an error: what goes wrong is an answer, or the end of the process."""
    parent = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    _die_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.disable(logging.CRITICAL)
    answers = _take_over_output()
    requests = _read_ahead(sys.stdin.buffer)
    start = next(requests)
    if not isinstance(start, Start):
        return
    _limit_memory(start.options)
    engine = Engine(start.options)
    chunks = _Chunks(start.options)
    _say(answers, Ready())
    for job in requests:
        failure: Failed | None = None
        try:
            if isinstance(job, ConvertJob):
                _write(Path(job.into), engine.convert(Path(job.source), job.filename))
            elif isinstance(job, ChunkJob):
                chunks.send(job, answers)
        except ConversionFailed as error:
            failure = Failed(error.code, error.message, error.transient)
        except MemoryError:
            failure = _out_of_memory(start.options)
        except RecursionError:
            failure = Failed("invalid_file", "The file is nested too deeply to be converted.")
        except Exception as error:  # noqa: BLE001  (a parser may raise anything at all)
            failure = Failed(
                "invalid_file",
                f"The file could not be converted ({type(error).__name__}): it may be damaged.",
                broken=True,
            )
        _say(answers, failure or Done())
        del job
        engine.tidy()


def _out_of_memory(options: EngineOptions) -> Failed:
    return Failed(
        "invalid_file",
        "The file needs more memory to be converted than documents.process_memory_bytes "
        f"({options.memory_bytes}) allows.",
        broken=True,
    )


def _die_with(parent: int) -> None:
    """On Linux the kernel kills us with our parent; elsewhere the end of input does."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent and os.getppid() != parent:  # it has died before we could ask
        os._exit(0)


def _take_over_output() -> BinaryIO:
    """The pipe to the gateway; whatever a library prints goes nowhere."""
    pipe = os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    return pipe


def _read_ahead(pipe: BinaryIO) -> Iterator[object]:
    """Requests, read by a thread that ends the process with its input, whatever it is doing."""
    waiting: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        while header := pipe.read(protocol.HEADER.size):
            if len(header) < protocol.HEADER.size:
                break
            (length,) = protocol.HEADER.unpack(header)
            waiting.put(pipe.read(length))
        os._exit(0)

    threading.Thread(target=read, name="requests", daemon=True).start()
    while True:
        try:
            yield protocol.parse_request(waiting.get())
        except msgspec.DecodeError:
            os._exit(1)


def _limit_memory(options: EngineOptions) -> None:
    """An allocation over the limit fails in here; the pool watches from outside as well.

    Not where torch runs: what it reserves and never touches is counted too.
    """
    if options.models_path is not None or sys.platform != "linux":
        return
    limit = max(options.memory_bytes - _SPARE_BYTES, _SPARE_BYTES)
    with contextlib.suppress(ValueError, OSError):  # a stricter limit is set already
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def _write(into: Path, data: bytes) -> None:
    """All or nothing: a file under its name is always whole."""
    part = into.with_name(f"{into.name}.part")
    part.write_bytes(data)
    part.replace(into)


def _say(pipe: BinaryIO, message: protocol.Answer) -> None:
    data = memoryview(protocol.frame(message))
    while data:
        data = data[os.write(pipe.fileno(), data) :]


class _Chunks:
    """Cuts documents; the tokenizer, which takes a moment to load, is kept."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._tokenizer: object = None

    def send(self, job: ChunkJob, answers: BinaryIO) -> None:
        from adapters.docling import chunking, reading, tokens

        tokenizer = self._tokenizer
        if not isinstance(tokenizer, tokens.Tokenizer):
            tokenizer = self._tokenizer = tokens.Tokenizer()
        document = reading.read_document(Path(job.document))
        found = chunking.chunk(document, job.sizes, tokenizer, self._options.max_chunks)
        batch = []
        for one in found:
            batch.append(one)
            if len(batch) == protocol.CHUNKS_IN_A_FRAME:
                _say(answers, Chunks(batch))
                batch = []
        if batch:
            _say(answers, Chunks(batch))


if __name__ == "__main__":
    main()
