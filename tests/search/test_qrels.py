from pathlib import Path

import pytest

from jaxlm.errors import UserError
from jaxlm.search.qrels import read_qrels

from .broken import QRELS


@pytest.mark.parametrize(
    "content",
    [
        "q1 0 d1 2\nq1 0 d2 0\nq2 Q0 d1 1\n",
        "q1\t0\td1\t2\nq1\t0\td2\t0\n\nq2\t0\td1\t1\n",
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\nq2\td1\t1\nq2\td1\t1\n",
    ],
    ids=["of TREC", "with tabs", "of BEIR"],
)
def test_judgements_are_read(tmp_path: Path, content: str) -> None:
    (tmp_path / "qrels").write_text(content)
    assert read_qrels(tmp_path / "qrels") == {"q1": {"d1": 2, "d2": 0}, "q2": {"d1": 1}}


@pytest.mark.parametrize("kind", QRELS)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, kind: str) -> None:
    content, message = QRELS[kind]
    (tmp_path / "qrels.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"^[^\n]*qrels\.txt[^\n]*$") as stop:
        read_qrels(tmp_path / "qrels.txt")
    assert message in str(stop.value)
