"""Files as forms send them: multipart/form-data (RFC 7578), or one picture as the whole body, as the JSON they mean."""

from email.message import Message
from typing import Any

from danlu import pixels
from danlu.serve.refusal import Refusal

FORM, PICTURE = "multipart/form-data", "image/"
_BREAK = b"\r\n"


def taken(kind: str) -> bool:
    """Whether a body of such a Content-Type is read here."""
    return kind.lower().startswith((FORM, PICTURE))


def read(kind: str, body: bytes) -> dict[str, Any]:
    """The fields of a form, files in base64, a list where several have one name; of one picture {"image": ...}.

    Raises:
        Refusal: it is no form.
    """
    if kind.lower().startswith(PICTURE):
        return {"image": pixels.written(body)}
    boundary = _header(kind).get_param("boundary")
    pieces = (_BREAK + body).split(_BREAK + b"--" + str(boundary or "").encode())
    if not boundary or len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        raise Refusal("invalid_form")
    found: dict[str, list[str]] = {}
    for piece in pieces[1:-1]:
        name, value = _field(piece)
        found.setdefault(name, []).append(value)
    return {name: values[0] if len(values) == 1 else values for name, values in found.items()}


def _field(piece: bytes) -> tuple[str, str]:
    """The name and the value of one part."""
    head, _, data = piece.removeprefix(_BREAK).partition(2 * _BREAK)
    lines = (line.partition(b":") for line in head.split(_BREAK))
    said = {name.strip().lower(): value.strip().decode("utf-8", "replace") for name, _, value in lines}
    about = _header(said.get(b"content-disposition", ""))
    name = about.get_param("name")
    if not isinstance(name, str):
        raise Refusal("invalid_form")
    if about.get_param("filename") is not None:
        return name, pixels.written(data)
    try:
        return name, data.decode()
    except UnicodeDecodeError as error:
        raise Refusal("not_text") from error


def _header(value: str) -> Message:
    made = Message()
    made["content-type"] = value
    return made
