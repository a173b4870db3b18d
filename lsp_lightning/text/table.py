"""A table on a terminal: columns that do not fit beside each other are printed below."""

from collections.abc import Iterator, Sequence

from lsp_lightning.text.terminal import columns, cut

_GAP = "  "


def table_lines(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """The lines of a table, each of at most ``width`` columns.

    The first column is on the left of each block, aligned to the left; the others are aligned to
    the right.

    Args:
        header: the name of each column, escaped.
        rows: the cells of each row, escaped.
        width: columns of the terminal.
    """
    table = [header, *rows]
    sizes = [max(columns(row[i]) for row in table) for i in range(len(header))]
    left = list(range(1, len(header)))
    while True:
        block: list[int] = []
        used = sizes[0]
        while left and (not block or used + len(_GAP) + sizes[left[0]] <= width):
            used += len(_GAP) + sizes[left[0]]
            block.append(left.pop(0))
        for row in table:
            cells = [_padded(row[0], sizes[0], False), *(_padded(row[i], sizes[i]) for i in block)]
            yield cut(_GAP.join(cells).rstrip(), width)
        if not left:
            return
        yield ""


def _padded(cell: str, size: int, right: bool = True) -> str:
    space = " " * (size - columns(cell))
    return space + cell if right else cell + space
