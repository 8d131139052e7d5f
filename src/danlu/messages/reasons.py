"""What a library or the operating system says of a failure, in the user's language where it is known."""

import errno
import re

from danlu import messages

# What the standard library's readers of TOML and JSON say, and the entry under [reasons.syntax] that says it too.
_SYNTAX = {
    r"Cannot overwrite a value": "twice",
    r"Cannot declare (?P<key>.+) twice": "declared_twice",
    r"Cannot (?:redefine|mutate immutable) namespace (?P<key>.+)": "declared_twice",
    r"Duplicate inline table key (?P<key>.+)": "declared_twice",
    r"Expected '=' after a key in a key/value pair": "equals",
    r"Expected '\]{1,2}' at the end of an? (?:table|array) declaration": "bracket",
    r"Expected newline or end of document after a statement": "newline",
    r"Expected (?P<what>.+)": "expected",
    r"Invalid (?:date or datetime)": "date",
    r"Invalid hex value|Escaped character is not a Unicode scalar value": "escape",
    r"Unescaped '\\+' in a string|Invalid \\+(?:u|escape).*": "escape",
    r"Invalid initial character for a key part": "key",
    r"Invalid statement": "statement",
    r"Invalid value|Expecting value": "value",
    r"Unclosed array": "array",
    r"Unclosed inline table": "table",
    r"Unterminated string.*": "string",
    r"(?:Found invalid|Illegal) character (?P<what>.+)": "character",
    r"Invalid control character.*": "control",
    r"Expecting (?P<what>'.') delimiter": "expected",
    r"Expecting property name enclosed in double quotes": "property",
    r"Extra data": "extra",
    r"Error while deserializing header: (?:incomplete metadata|header too small|.*MetadataIncomplete).*": "torn",
    r"Error while deserializing header.*": "header",
}


def because(error: BaseException) -> str:
    """Why `error` happened, in one clause: by its errno, else by its text, else its text as it is."""
    if isinstance(error, OSError) and error.errno is not None:
        known = messages.find(f"reasons.os.{errno.errorcode.get(error.errno, '')}")
        return known if isinstance(known, str) else error.strerror or str(error)
    said = getattr(error, "msg", None)
    return syntax(said if isinstance(said, str) else str(error)) or type(error).__name__


def syntax(said: str) -> str:
    """The complaint of a reader of TOML or JSON, without the place that some append to it."""
    said = re.sub(r"(?:: | \()(?:at line|line|at end of).*", "", said, flags=re.DOTALL)
    for pattern, entry in _SYNTAX.items():
        if match := re.fullmatch(pattern, said):
            return messages.text(f"reasons.syntax.{entry}", **match.groupdict())
    return said
