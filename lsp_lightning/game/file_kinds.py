"""The kind of a file that is not UTF-8 text, as its first bytes show it."""

from lsp_lightning.errors import ConfigError

#: How files begin that are not text.
_MAGIC = {
    b"PAR1": "Parquet",
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "a zip archive or an Excel sheet",
    b"\xd0\xcf\x11\xe0": "an Excel sheet",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"ARROW1": "Arrow",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"SQLite": "an SQLite database",
    b"\x93NUMPY": "NumPy",
    b"Obj\x01": "Avro",
    b"ORC": "ORC",
    b"%PDF": "PDF",
    b"\x80\x04": "pickle",
    b"\x80\x05": "pickle",
    b"\xff\xfe\0\0": "UTF-32 text",
    b"\0\0\xfe\xff": "UTF-32 text",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
#: Encodings whose files hold zero bytes.
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
#: What to do about a file of a kind that is not read.
REMEDIES = {
    "UTF-16 text": "save it as UTF-8",
    "UTF-32 text": "save it as UTF-8",
    "UTF-16 or UTF-32 text": "save it as UTF-8",
    "gzip": "unpack it first",
    "zstd": "unpack it first",
    "bzip2": "unpack it first",
    "xz": "unpack it first",
}


def is_parquet(start: bytes, path: str, key: str, formats: str) -> bool:
    """Whether a file that begins like this is Parquet; False for text.

    Raises:
        ConfigError: it is neither.
    """
    kind = kind_of(start)
    if kind not in (None, "Parquet"):
        raise ConfigError(key, f"{path!r} is {kind}", REMEDIES.get(kind, formats))
    return kind is not None


def kind_of(start: bytes) -> str | None:
    """What a file is that begins with these bytes; None for text.

    Args:
        start: some thousand bytes.
    """
    found = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
    if found or b"\0" not in start:
        return found
    return "UTF-16 or UTF-32 text" if _is_wide(start) else "not text"


def _is_wide(start: bytes) -> bool:
    """Whether these are characters of two or four bytes each, without a mark that says so."""
    if (
        start.count(b"\0") < len(start) / 5
    ):  # a pair of any two bytes may be a letter of some script
        return False
    for encoding in _WIDE:
        try:
            text = start[: len(start) // 4 * 4].decode(encoding)
        except UnicodeDecodeError:
            continue
        if text and all(c.isprintable() or c.isspace() for c in text):
            return True
    return False
