import numpy as np

from jaxlm.data import rows
from jaxlm.data.rows import Windows


def windows(lengths: list[int], seed: int = 0) -> Windows:
    about = np.zeros(len(lengths), rows.WINDOW)
    about["document"], about["length"] = np.arange(len(lengths)), lengths
    return Windows(about, np.random.default_rng(seed).integers(5, 60000, sum(lengths)).astype("<u2"))


def by_document(parts: list[Windows]) -> dict[int, list[int]]:
    found = {}
    for about, tokens in parts:
        for window, ids in zip(about, np.split(tokens, np.cumsum(about["length"])[:-1]), strict=True):
            assert int(window["document"]) not in found
            found[int(window["document"])] = ids.tolist()
    return found


def test_a_section_is_cut_into_full_windows_and_a_rest() -> None:
    counts = np.array([0, 1, 9, 10, 11, 30, 5, 25])
    documents, pieces = np.array([2, 2, 3, 3, 3, 4, 4, 4]), np.array([0, 0, 0, 1, 1, 0, 0, 0])
    about, section_of = rows.cut(counts, 10, documents, pieces)
    for section, count in enumerate(counts):
        windows = about[section_of == section]
        assert windows["length"].sum() == count
        assert (windows["length"][:-1] == 10).all()
        assert set(windows["document"]) <= {documents[section]}
        assert set(windows["piece"]) <= {pieces[section]}
    assert about["window"].tolist() == [0, 0, 0, 1, 2, 0, 1, 2, 3, 4, 5, 6]


def test_rows_hold_every_token_once_and_are_read_back_as_written() -> None:
    lengths = np.random.default_rng(1).integers(1, 41, 500).tolist()
    given = windows(lengths)
    records, most, left = rows.pack(given, 64, 2)
    assert not len(left.about)
    parsed = [rows.parse(record, np.dtype("<u2")) for record in records]
    assert by_document(parsed) == by_document([given])
    assert most == max(len(row.about) for row in parsed)
    sizes = [int(row.about["length"].sum()) + 2 * len(row.about) for row in parsed]
    assert max(sizes) <= 64
    assert sum(sizes) / (64 * len(records)) > 0.98


def test_windows_of_rows_that_are_not_full_are_handed_back() -> None:
    given = windows([62, 30, 30, 20, 10])
    records, _, left = rows.pack(given, 64, 2, least=0.98)
    parsed = [rows.parse(record, np.dtype("<u2")) for record in records]
    assert by_document([*parsed, left]) == by_document([given])
    assert sorted(left.about["length"].tolist()) == [10, 20]
    assert all(int(row.about["length"].sum()) + 2 * len(row.about) >= 0.98 * 64 for row in parsed)


def test_no_row_could_have_held_another_rows_windows() -> None:
    """Best fit opens a row only where no open one has room: no two rows may fit into one."""
    lengths = np.random.default_rng(2).integers(1, 33, 400)
    rows_of = rows.fit(lengths, 32)
    filled = np.sort(np.bincount(rows_of, weights=lengths))
    assert filled[0] + filled[1] > 32
    assert filled.max() <= 32
