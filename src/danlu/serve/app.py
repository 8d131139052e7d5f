"""The HTTP API: models, completions, chats, health, metrics. Handlers only translate; the engine generates."""

import asyncio
import time
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from danlu.serve import jobs
from danlu.serve.answers import ChatShape, Shape, TextShape, embeddings
from danlu.serve.engine import Engine
from danlu.serve.gate import LOOPBACK, Gate
from danlu.serve.judge import Judge
from danlu.serve.refusal import Refusal, of_faults, of_status
from danlu.serve.response import GenerationResponse
from danlu.serve.schema import (
    ChatRequest,
    CompletionRequest,
    Embeddings,
    EmbeddingsRequest,
    Generated,
    ModelCard,
    ModelList,
    OneRow,
    Predictions,
    PredictRequest,
    explain_request,
    predict_request,
)
from danlu.serve.wire import PicturesRoute, StrictRoute


def create_app(
    engine: Engine | Judge, name: str, *, hosts: frozenset[str] | None = LOOPBACK, key: str | None = None
) -> Gate:
    """The application that serves `engine`'s model under the name `name`.

    `hosts`: the Host names it answers to, None for any. `key`: the bearer token that clients must send, if any.
    """
    app = FastAPI(title="danlu", openapi_url="/openapi.json", docs_url=None, redoc_url=None, redirect_slashes=False)
    seen = isinstance(engine, Judge) and "image" in engine.served.asks
    app.router.route_class = PicturesRoute if seen else StrictRoute
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(Exception, _broken)
    _add_models(app, engine, name)
    if isinstance(engine, Judge):
        _add_judgement(app, engine, name)
        if engine.served.embeds:
            _add_embeddings(app, engine, name)
    else:
        _add_generation(app, engine, name)
    _add_health(app, engine)
    return Gate(app, counters=engine.counters, hosts=hosts, key=key)


def _add_models(app: FastAPI, engine: Engine | Judge, name: str) -> None:
    card = ModelCard(id=name, created=int(time.time()), max_model_len=engine.served.context)

    @app.get("/v1/models")
    async def models() -> ModelList:
        return ModelList(data=[card])

    @app.get("/v1/models/{model:path}")
    async def model(model: str) -> ModelCard:
        _check_model(model, name)
        return card


def _add_generation(app: FastAPI, engine: Engine, name: str) -> None:
    async def respond(wish: Generated, make: Any, shape: Shape) -> Response:
        _check_model(wish.model, name)
        # Encoding a long text takes a while: it must not stop the other streams.
        made = await asyncio.to_thread(make, engine.served, wish)
        usage = wish.stream_options.include_usage
        return GenerationResponse(engine, made, shape, stream=wish.stream, include_usage=usage)

    @app.post("/v1/completions", response_model=None)
    async def completions(wish: CompletionRequest) -> Response:
        return await respond(wish, jobs.of_completion, TextShape(name))

    @app.post("/v1/chat/completions", response_model=None)
    async def chat(wish: ChatRequest) -> Response:
        return await respond(wish, jobs.of_chat, ChatShape(name))


def _add_judgement(app: FastAPI, judge: Judge, name: str) -> None:
    async def predict(wish: PredictRequest) -> Predictions:
        _check_model(wish.model or name, name)
        said = await asyncio.wrap_future(judge.submit(wish.rows))
        return Predictions(model=name, predictions=said)

    async def explain(wish: OneRow) -> dict[str, Any]:
        _check_model(wish.model or name, name)
        (found,) = await asyncio.wrap_future(judge.explain(wish.rows[0], wish.target))
        return {"model": name, **found}

    predict.__annotations__["wish"] = predict_request(judge.served.asks)
    explain.__annotations__["wish"] = explain_request(judge.served.asks)
    app.post("/predict")(predict)
    if not judge.served.makes:
        app.post("/explain")(explain)


def _add_embeddings(app: FastAPI, judge: Judge, name: str) -> None:
    @app.post("/v1/embeddings")
    async def embed(wish: EmbeddingsRequest) -> Embeddings:
        _check_model(wish.model, name)
        found = await asyncio.wrap_future(judge.submit(wish.rows))
        return embeddings(name, found, wish.encoding_format)


def _add_health(app: FastAPI, engine: Engine | Judge) -> None:
    @app.get("/health/live")
    async def live() -> dict[str, str]:
        return {"status": "live"}

    @app.get("/health/ready")
    async def ready() -> dict[str, str]:
        if not engine.ready:
            raise Refusal("shutting_down")
        return {"status": "ready"}

    @app.get("/metrics")
    async def metrics() -> PlainTextResponse:
        return PlainTextResponse(engine.exposition(), media_type="text/plain; version=0.0.4")


def _check_model(asked: str, name: str) -> None:
    if asked != name:
        raise Refusal("model_not_found", param="model", name=name)


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return of_faults(error.errors(), error.body).response()


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    return (error if isinstance(error, Refusal) else of_status(error.status_code)).response()


async def _broken(request: Request, error: Exception) -> JSONResponse:
    """A mistake of ours: the log has it, the client learns nothing but the request's id (in the headers)."""
    return Refusal("internal_error").response()
