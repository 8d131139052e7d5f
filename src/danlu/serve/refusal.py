"""How the server says no: {"error": {"message", "type", "param", "code"}} with the right status, and nothing else."""

from collections.abc import Sequence
from typing import Any

from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from danlu import messages

_STATUS = {
    "invalid_json": 400,
    "duplicate_key": 400,
    "not_text": 400,
    "invalid_form": 400,
    "invalid_value": 400,
    "unknown_field": 400,
    "missing_field": 400,
    "prompt_too_long": 400,
    "too_many_tokens": 400,
    "not_a_chat_model": 400,
    "invalid_api_key": 401,
    "forbidden_host": 403,
    "forbidden_origin": 403,
    "not_found": 404,
    "model_not_found": 404,
    "method_not_allowed": 405,
    "body_timeout": 408,
    "body_too_large": 413,
    "not_json": 415,
    "internal_error": 500,
    "overloaded": 503,
    "shutting_down": 503,
}
_KINDS = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}


class Refusal(HTTPException):
    """A request that is not served; `code` names both its status and its sentence, serve.refusal.CODE."""

    def __init__(self, code: str, *, param: str | None = None, **fields: Any):
        super().__init__(_STATUS[code])
        self.code, self.param = code, param
        self.message = messages.text(f"serve.refusal.{code}", param=param, **fields)

    @property
    def kind(self) -> str:
        return _KINDS.get(self.status_code, "server_error" if self.status_code >= 500 else "invalid_request_error")

    def body(self) -> dict[str, Any]:
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    def response(self) -> JSONResponse:
        headers = {"Retry-After": "1"} if self.status_code == 503 else {}
        headers |= {"WWW-Authenticate": "Bearer"} if self.status_code == 401 else {}
        return JSONResponse(self.body(), self.status_code, headers)


def of_status(status: int) -> Refusal:
    """The refusal for a status that the web framework chose itself (no such route, wrong method)."""
    return Refusal({404: "not_found", 405: "method_not_allowed"}.get(status, "invalid_json"))


def of_faults(faults: Sequence[ErrorDetails], body: Any) -> Refusal:
    """The refusal for what pydantic found in a request body: of its complaints, the one that points deepest."""
    fault = max(faults, key=lambda each: len(_place(each, body)))
    param = ".".join(_place(fault, body))[:100] or "body"
    if fault["type"] == "extra_forbidden":
        return Refusal("unknown_field", param=param)
    if fault["type"] == "missing":
        return Refusal("missing_field", param=param)
    wanted = messages.find(f"recipe.expected.{fault['type']}")
    reason = wanted.format(**fault.get("ctx", {})) if wanted else fault["msg"]
    return Refusal("invalid_value", param=param, reason=reason)


def _place(fault: ErrorDetails, body: Any) -> list[str]:
    """Where in the body the fault is; pydantic's names for the branches of a union are left out."""
    place = []
    for part in fault["loc"][1:]:
        try:
            body = body[part]
        except (LookupError, TypeError):
            if fault["type"] != "missing" or part != fault["loc"][-1]:
                continue
        place.append(str(part))
    return place
