"""Converter processes that can be killed: at most so many, kept warm between documents."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import tempfile
from pathlib import Path

import adapters
from adapters.docling import protocol
from adapters.docling.engine import EngineOptions
from adapters.docling.protocol import Chunks, Done, Failed, Job, Ready, Start
from gateway.ports import Chunk, ConversionFailed
from gateway.settings import DocumentSettings, IngestionSettings

__all__ = ["ProcessPool"]

_logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.1
"""Between two looks at a process's memory."""
_IDLE_SECONDS = 300.0
"""A process that has had nothing to do for so long is ended, and its memory is free again."""
_MAX_FRAME_BYTES = 256 * 1024 * 1024
_START_SECONDS = 60.0

_PASSED_ON = (
    "CUDA_VISIBLE_DEVICES",
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "OMP_NUM_THREADS",
    "PATH",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONHOME",
    "TMPDIR",
    "TZ",
)
"""The environment of a process: nothing else, so no secret is in it."""


class _Process:
    """One converter process, and what the pool knows of it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.jobs = 0
        self.largest = 0
        """The most memory it was seen to use, in bytes."""
        self.over_limit = False
        self.idle: asyncio.TimerHandle | None = None

    @property
    def ended(self) -> bool:
        return self.process.returncode is not None

    async def send(self, message: protocol.Request) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(protocol.frame(message))
        await self.process.stdin.drain()

    async def receive(self) -> protocol.Answer:
        """Raises ``asyncio.IncompleteReadError`` when the process has ended."""
        assert self.process.stdout is not None
        header = await self.process.stdout.readexactly(protocol.HEADER.size)
        (length,) = protocol.HEADER.unpack(header)
        if length > _MAX_FRAME_BYTES:
            raise asyncio.IncompleteReadError(b"", length)
        return protocol.parse_answer(await self.process.stdout.readexactly(length))

    def kill(self) -> None:
        if self.idle is not None:
            self.idle.cancel()
            self.idle = None
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()

    def look(self) -> None:
        """Take note of its memory. Does nothing where there is no /proc."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{self.process.pid}/statm").read_bytes().split()
            used = int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
            self.largest = max(self.largest, used)


class ProcessPool:
    """Runs jobs in processes of its own, ``documents.processes`` of them at once.

    A job that takes too long or is cancelled is killed with its process, and one that takes too
    much memory too; the next job gets a fresh process. Nothing is started before the first job.
    """

    def __init__(self, documents: DocumentSettings, ingestion: IngestionSettings) -> None:
        self._settings = documents
        self._timeout = ingestion.timeout_seconds
        self._options = EngineOptions(
            max_pages=ingestion.max_pages,
            max_file_bytes=ingestion.max_file_bytes,
            max_unzipped_bytes=ingestion.max_unzipped_bytes,
            max_chunks=ingestion.max_chunks,
            models_path=documents.models_path,
            ocr=documents.ocr,
            memory_bytes=documents.process_memory_bytes,
        )
        self._free = asyncio.Semaphore(documents.processes)
        self._warm: list[_Process] = []
        self._busy: set[_Process] = set()
        self._ending: set[asyncio.Task[int]] = set()
        self._closed = False

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that are alive, busy ones first."""
        alive = [*self._busy, *self._warm]
        return [one.process.pid for one in alive if not one.ended]

    async def run(self, job: Job) -> list[Chunk]:
        """The chunks, if it is a job that makes some. Raises ``ConversionFailed``."""
        async with self._free:
            if self._closed:
                raise _shutting_down()
            process = await self._take()
            reusable = False
            try:
                chunks, failure = await self._watched(process, job)
                process.jobs += 1
                reusable = failure is None or not failure.broken
            finally:  # cancelled too: nothing goes on that nobody waits for
                self._busy.discard(process)
                if reusable and process.jobs < self._settings.process_jobs and not self._closed:
                    self._keep(process)
                else:
                    self._end(process)
        if failure is not None:
            raise ConversionFailed(failure.code, failure.message, transient=failure.transient)
        return chunks

    async def aclose(self) -> None:
        """Kill all processes, and wait until they are gone."""
        self._closed = True
        for process in [*self._warm, *self._busy]:
            self._end(process)
        self._warm.clear()
        if self._ending:
            await asyncio.wait(self._ending, timeout=5)

    async def _watched(self, process: _Process, job: Job) -> tuple[list[Chunk], Failed | None]:
        """The job's answer, within the limits of time and memory."""
        watcher = asyncio.create_task(self._watch_memory(process))
        try:
            async with asyncio.timeout(self._timeout):
                return await _exchange(process, job)
        except TimeoutError:
            raise ConversionFailed(
                "invalid_file",
                f"The conversion took longer than ingestion.timeout_seconds ({self._timeout:g} "
                "seconds). Split the file.",
            ) from None
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise await self._died(process) from error
        finally:
            watcher.cancel()

    async def _watch_memory(self, process: _Process) -> None:
        while not process.ended:
            process.look()
            if process.largest > self._settings.process_memory_bytes:
                process.over_limit = True
                process.kill()
                return
            await asyncio.sleep(_LOOK_SECONDS)

    async def _died(self, process: _Process) -> ConversionFailed:
        """Why the process has ended in the middle of its work."""
        if self._closed:
            return _shutting_down()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.process.wait(), 1)
        limit = self._settings.process_memory_bytes
        # A library that can't go on without memory aborts: the watcher comes too late for it.
        if process.over_limit or process.largest > 0.9 * limit:
            return ConversionFailed(
                "invalid_file",
                "The file needs more memory to be converted than documents.process_memory_bytes "
                f"({limit}) allows.",
            )
        _logger.warning(
            "A converter process ended with %s in the middle of its work.",
            process.process.returncode,
        )
        return ConversionFailed(
            "server_error", "The converter died while it worked on the file.", transient=True
        )

    async def _take(self) -> _Process:
        """A process that is ready, from now on busy."""
        while self._warm:
            process = self._warm.pop()
            if process.idle is not None:
                process.idle.cancel()
                process.idle = None
            if not process.ended:
                self._busy.add(process)
                return process
        return await self._start()

    async def _start(self) -> _Process:
        process = _Process(
            await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "adapters.docling.worker",
                str(os.getpid()),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,  # an interrupt from the keyboard is the gateway's to handle
            )
        )
        self._busy.add(process)
        ready = False
        try:
            async with asyncio.timeout(_START_SECONDS):
                await process.send(Start(self._options))
                ready = isinstance(await process.receive(), Ready)
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError) as error:
            raise ConversionFailed(
                "server_error", "The converter could not be started.", transient=True
            ) from error
        finally:
            if not ready:
                self._busy.discard(process)
                self._end(process)
        return process

    def _keep(self, process: _Process) -> None:
        loop = asyncio.get_running_loop()
        process.idle = loop.call_later(_IDLE_SECONDS, self._end_idle, process)
        self._warm.append(process)

    def _end_idle(self, process: _Process) -> None:
        if process in self._warm:
            self._warm.remove(process)
            self._end(process)

    def _end(self, process: _Process) -> None:
        process.kill()
        task = asyncio.ensure_future(process.process.wait())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


async def _exchange(process: _Process, job: Job) -> tuple[list[Chunk], Failed | None]:
    await process.send(job)
    chunks: list[Chunk] = []
    while True:
        answer = await process.receive()
        if isinstance(answer, Chunks):
            chunks.extend(answer.chunks)
        elif isinstance(answer, Done):
            return chunks, None
        elif isinstance(answer, Failed):
            return [], answer


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    root = str(Path(adapters.__file__).parent.parent)
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    cache = str(Path(tempfile.gettempdir()) / "understudy-converter")
    return {
        "HOME": cache,  # a container's user id may have no home, and docling asks where it is
        **passed,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONSAFEPATH": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": cache,
        "XDG_CACHE_HOME": cache,
    }


def _shutting_down() -> ConversionFailed:
    return ConversionFailed("server_error", "The gateway is shutting down.", transient=True)
