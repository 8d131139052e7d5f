"""One HTML page that stands alone: it says itself that no script and no request may come from it."""

import html

from danlu import messages

_LANGUAGES = {"zh": "zh-CN", "en": "en"}


def page(title: str, body: str, style: str) -> str:
    """The page in the language in force; `title` is text, `body` is HTML, `style` is CSS."""
    parts = {"language": _LANGUAGES[messages.language()], "title": html.escape(title), "body": body, "style": style}
    return _PAGE.format_map(parts)


_PAGE = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · danlu</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
