"""A report as one HTML page that needs nothing else: no script, no picture, no font from elsewhere."""

from __future__ import annotations

from html import escape

from ..tables import html_table

#: Colours follow the reader's choice of light or dark; widths follow the window.
_STYLE = """
:root { color-scheme: light dark; --line: #c8c8c8; --bar: #6baed6; --weak: #666; }
@media (prefers-color-scheme: dark) { :root { --line: #555; --bar: #3f7fa8; --weak: #aaa; } }
body { font: 15px/1.45 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; } p { color: var(--weak); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { padding: .25rem .45rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap; }
th:first-child, td:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; }
td:nth-child(2) { white-space: normal; min-width: 9rem; }
.bars { display: grid; grid-template-columns: max-content 1fr max-content; gap: .2rem .7rem; font-size: .9rem; }
.bars div { background: var(--bar); height: 1em; align-self: center; }
"""


def report_page(report, title):
    """Return the HTML page of a `Report`.

    Parameters
    ----------
    report : Report
    title : str

    Returns
    -------
    str
    """
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(_summary(report))}</p>"]
    parts.append(f'<div class="wide">{report._repr_html_()}</div>')
    if any(row.output_sqnr is not None for row in report.rows):
        parts += ["<h2>SQNR of the outputs</h2>", "<p>Signal over noise against the float network, in dB.</p>"]
        parts.append(_bars([(row.layer, row.output_sqnr) for row in report.rows]))
    if report.stayed_float:
        parts += ["<h2>What stayed float</h2>", html_table(("layer", "why"), report.stayed_float.items())]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join(parts)
    head += f"<style>{_STYLE}</style>"
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{body}\n</body>\n</html>\n'


def _summary(report):
    on_integers = len(report.rows) - len(report.stayed_float)
    return (
        f"{on_integers} of {len(report.rows)} layers run on integers; {report.parameters:,} weights and biases take "
        f"{report.bytes:,} bytes, {4 * report.parameters / max(report.bytes, 1):.1f} times less than in float32."
    )


def _bars(values):
    finite = [value for _, value in values if value is not None and value < float("inf")]
    longest = max([*finite, 1.0])
    cells = []
    for name, value in values:
        share = 0.0 if value is None else min(max(value / longest, 0.0), 1.0)
        text = "-" if value is None else f"{value:.1f} dB"
        cells.append(f'<span>{escape(name)}</span><div style="width: {100 * share:.1f}%"></div><span>{text}</span>')
    return f'<div class="bars">{"".join(cells)}</div>'
