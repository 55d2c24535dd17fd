"""Pages of one HTML file without references to any other: their style, and their frame."""

from __future__ import annotations

import base64

STYLE = """
:root { --ink: #1d2733; --dim: #5c6b7a; --line: #dde3e9; --ours: #2a6f97; --good: #2f7d4f;
  --bad: #b3402a; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: #fff; margin: 0; }
main { max-width: 860px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; }
h2 { font-size: 20px; margin: 44px 0 8px; padding-top: 18px; border-top: 1px solid var(--line); }
p { margin: 8px 0; }
.dim, figcaption, .small { color: var(--dim); }
.small, figcaption { font-size: 14px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(185px, 1fr)); gap: 14px;
  margin: 24px 0; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; }
.card b { display: block; font-size: 27px; line-height: 1.2; color: var(--ours); }
table { border-collapse: collapse; width: 100%; margin: 12px 0; font-size: 15px; }
th { text-align: left; font-weight: 600; color: var(--dim); }
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.ours td { font-weight: 600; }
td small { display: block; font-size: 13px; font-weight: 400; color: var(--dim); }
figure { margin: 14px 0; }
img { max-width: 100%; height: auto; display: block; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 12px; }
pre { background: #f5f7f9; border-radius: 8px; padding: 12px 14px; overflow-x: auto; margin: 12px 0;
  font: 13px/1.45 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
pre b { color: var(--ours); }
.yes { color: var(--good); font-weight: 600; }
.no { color: var(--bad); font-weight: 600; }
code { font: 13px ui-monospace, monospace; }
dt { font-weight: 600; margin-top: 10px; }
dd { margin: 0; }
"""


def document(title: str, body: str, style: str = "") -> str:
    """The whole file around `body`; `style` is added to what all pages have."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def data_uri(png: bytes) -> str:
    """What an <img> needs as its src to hold the picture itself."""
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"
