"""Tables as text and as HTML, from the same cells."""

from __future__ import annotations

from html import escape


def text_table(head, rows, left=1):
    """Return lines of aligned columns, the first `left` of them to the left.

    Examples
    --------
    >>> print(text_table(("layer", "bits"), [("conv", "8"), ("fc", "16")]))
    layer  bits
    conv      8
    fc       16
    """
    cells = [tuple(head), *map(tuple, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]

    def line(row):
        pairs = list(zip(row, widths, strict=True))
        return "  ".join([*(c.ljust(w) for c, w in pairs[:left]), *(c.rjust(w) for c, w in pairs[left:])]).rstrip()

    return "\n".join(map(line, cells))


def html_table(head, rows):
    """Return one table of escaped cells.

    Examples
    --------
    >>> html_table(("a",), [("<1>",)])
    '<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>&lt;1&gt;</td></tr></tbody></table>'
    """

    def line(row, tag):
        return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"
