"""Find quoted text: in quotation marks, in inline code, or in a code block."""

import re

_BEFORE, _AFTER = "(?<![0-9A-Za-z_])", "(?!(?!s\\b)[0-9A-Za-z_])"
#: Quotations within a line. What opens one does not follow a word, and what closes one does not
#: precede a word, so apostrophes, inches and stray marks quote nothing; a single tag needs neither.
#: Each alternative stops at the next mark of its kind: a search takes linear time.
_INLINE = re.compile(
    r"(?P<q>[`\"'])[<\[{][^\s`\"']{1,40}[>\]}](?P=q)"
    rf"|(?<!`){_BEFORE}``(?:[^`\n]|`(?!`))+``(?!`){_AFTER}"
    rf"|(?<!`){_BEFORE}`[^`\n]+`(?!`){_AFTER}"
    rf'|{_BEFORE}"[^"\n]+"{_AFTER}'
    rf"|{_BEFORE}'[^'\s]+'{_AFTER}"
    r"|\u201c[^\u201c\u201d\n]+\u201d|\u2018[^\u2018\u2019\n]+\u2019"
    r"|\u00ab[^\u00ab\u00bb\n]+\u00bb|\u300c[^\u300c\u300d\n]+\u300d"
)
_QUOTES = re.compile("[`\"'\u201c\u2018\u00ab\u300c]")
#: The lines around a code block; the first may follow a mark.
_FENCE = re.compile(r"(?m)(?:^|(?<=[>\]]))[ \t]*(```|~~~)[`~]*([^`\n]*)$")


class Quotations:
    """The quotations of a text. Ask for positions in ascending order."""

    def __init__(self, text: str) -> None:
        quotes = _QUOTES.search(text)
        inline = _INLINE.finditer(text, quotes.start()) if quotes else ()
        fences = _FENCE.finditer(text) if "```" in text or "~~~" in text else ()
        self._inline = [match.span() for match in inline]
        self._fences = [(m.start(), m[1], not m[2].strip()) for m in fences]
        self._closed_by = self._closing_fences()
        self._line = self._fence = 0
        self._block_ends = -1

    def _closing_fences(self) -> list[int]:
        """For each fence, the number of the next one that can close it; -1 for none."""
        following, closed_by = {"```": -1, "~~~": -1}, [-1] * len(self._fences)
        for i in reversed(range(len(self._fences))):
            _, kind, bare = self._fences[i]
            closed_by[i] = following[kind]
            if bare:
                following[kind] = i
        return closed_by

    def begin(self, position: int) -> None:
        """Code blocks that began before ``position`` no longer count."""
        while self._fence < len(self._fences) and self._fences[self._fence][0] < position:
            self._fence += 1
        self._block_ends = -1

    def hold(self, position: int, blocks: bool) -> bool:
        """Whether the position is quoted, in its line or (if ``blocks``) by a code block."""
        while self._line < len(self._inline) and self._inline[self._line][1] <= position:
            self._line += 1
        if self._line < len(self._inline) and self._inline[self._line][0] <= position:
            return True
        return blocks and bool(self._fences) and self._in_block(position)

    def _in_block(self, position: int) -> bool:
        """Whether the position is in a code block that has an end."""
        while self._fence < len(self._fences) and self._fences[self._fence][0] < position:
            closing = self._closed_by[self._fence]
            if closing >= 0:
                self._block_ends = self._fences[closing][0]
            self._fence = max(closing, self._fence) + 1
        return position < self._block_ends
