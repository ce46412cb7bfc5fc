"""Data sets of the Hugging Face hub -> rows, streamed.

Beside `tables` in `formats`. Invariant: nothing of `datasets` is imported before a hub name is read, as it is slow to
import; whatever the network does comes out as one sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from plaudit.errors import DataError
from plaudit.formats.content import Raw
from plaudit.formats.sources import Source
from plaudit.formats.tables import clean_cell


def read_hub(source: Source, note: Callable[[str], None]) -> Iterator[tuple[int, Raw]]:
    """Number and row of a data set of the hub: owner/name[:config][@split]."""
    named, _, split = source.place.partition("@")
    name, _, config = named.partition(":")
    if not name:
        raise DataError("a data set without a name came; hub:owner/name[:config][@split] was needed")
    try:
        import datasets
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise DataError(f"the hub needs the library `datasets` ({error}); pip install datasets") from None
    # The bases are those of the HTTP library that the hub's client was built on, which is not always the same one.
    failures = (*HfHubHTTPError.__bases__, OSError, ValueError, RuntimeError, NotImplementedError)
    try:
        if not split:
            split = choose_split(source.name, datasets.get_dataset_split_names(name, config or None), note)
        rows = datasets.load_dataset(name, config or None, split=split, streaming=True)
        for line, row in enumerate(rows, start=1):
            yield line, {column: clean_cell(cell) for column, cell in row.items()}
    except DataError:
        raise
    except (*failures, datasets.exceptions.DatasetsError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"the hub did not give this data set ({reason}); check the name, the config, the split and the network, "
            f"or download it and name the files"
        ) from None


def choose_split(name: str, splits: list[str], note: Callable[[str], None]) -> str:
    """The split to read when none was named: the only one, or train; said in both cases."""
    if len(splits) != 1 and "train" not in splits:
        raise DataError(f"it has the splits {', '.join(splits)}; name one: {name}@SPLIT")
    split = splits[0] if len(splits) == 1 else "train"
    note(f"{name}: no split was named, {split} is read" + (f" (it has {', '.join(splits)})" if len(splits) > 1 else ""))
    return split
