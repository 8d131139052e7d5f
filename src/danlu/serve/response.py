"""An HTTP response that owns its generations: whatever ends it, done or disconnected, they end with it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from danlu.serve.answers import Said, Shape
from danlu.serve.engine import REFUSALS, Engine
from danlu.serve.generation import Generation, Piece
from danlu.serve.jobs import Work
from danlu.serve.refusal import Refusal
from danlu.serve.schema import Usage
from danlu.serve.wire import event

WRITE_SECONDS = 30.0
_SSE = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class GenerationResponse(Response):
    """All choices of one request, streamed or whole; choice i is job i."""

    def __init__(self, engine: Engine, work: Work, shape: Shape, *, stream: bool, include_usage: bool):
        super().__init__()
        self._engine, self._work, self._shape = engine, work, shape
        self._stream, self._include_usage = stream, include_usage
        self._pieces: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        running: list[Generation] = []
        try:
            running += self._engine.submit(self._work.jobs, self._sink())
            answer = self._chunks(send) if self._stream else self._whole(scope, receive, send)
            await _until_gone(receive, answer)
        finally:
            for generation in running:
                generation.cancel()

    def _sink(self) -> Any:
        """How the engine thread hands a piece to this event loop."""
        loop = asyncio.get_running_loop()
        return lambda index, piece: loop.call_soon_threadsafe(self._pieces.put_nowait, (index, piece))

    async def _arriving(self) -> AsyncIterator[tuple[int, Piece]]:
        """The pieces of all choices as they come, until each has ended.

        Raises:
            Refusal: a choice ended otherwise than by an answer.
        """
        going = len(self._work.jobs)
        while going:
            index, piece = await self._pieces.get()
            if piece.finish in REFUSALS:
                raise Refusal(REFUSALS[piece.finish])
            going -= piece.finish is not None
            yield index, piece

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        texts, ends = [""] * len(self._work.jobs), {}
        async for index, piece in self._arriving():
            texts[index] += piece.text
            if piece.finish:
                ends[index] = piece
        said = [Said(text, ends[index].finish) for index, text in enumerate(texts)]
        await JSONResponse(self._shape.whole(said, self._usage(ends.values())))(scope, receive, send)

    async def _chunks(self, send: Send) -> None:
        """Server-sent events. The status goes out with the first piece, so that an early failure still has its own."""
        started, ends = False, []
        try:
            async for index, piece in self._arriving():
                if not started:
                    await self._open(send)
                    started = True
                ends += [piece] * (piece.finish is not None)
                await _write(send, event(self._shape.chunk(self._shape.piece(index, piece.text, piece.finish))))
        except Refusal as refusal:
            if not started:
                raise
            await _write(send, event(refusal.body()), last=True)
            return
        if self._include_usage:
            await _write(send, event(self._shape.chunk(None, self._usage(ends))))
        await _write(send, event(b"[DONE]"), last=True)

    async def _open(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(_SSE)})
        for index in range(len(self._work.jobs)):
            if opening := self._shape.opening(index):
                await _write(send, event(self._shape.chunk(opening)))

    def _usage(self, ends: Any) -> Usage:
        prompt = self._work.prompt_tokens
        generated = sum(piece.tokens for piece in ends)
        return Usage(prompt_tokens=prompt, completion_tokens=generated, total_tokens=prompt + generated)


async def _write(send: Send, body: bytes, *, last: bool = False) -> None:
    """Send one chunk; a client that does not read for WRITE_SECONDS counts as gone."""
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            await send({"type": "http.response.body", "body": body, "more_body": not last})
    except TimeoutError as error:
        raise ClientDisconnect from error


async def _until_gone(receive: Receive, answer: Awaitable[None]) -> None:
    """Await `answer`, but no longer than the client stays connected."""
    work, gone = (asyncio.ensure_future(answer), asyncio.ensure_future(_disconnected(receive)))
    try:
        await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            await work
    except ClientDisconnect:
        pass
    finally:
        work.cancel()
        gone.cancel()
        await asyncio.wait({work, gone})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
