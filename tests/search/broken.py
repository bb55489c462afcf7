"""Files of documents and of judgements that cannot be read, and what is said of them."""

# What the file is called and what of it is wrong: its content, the message, and what is left of it without the bad row
# (None: it is an error all the same).
DOCUMENT_FILES: dict[str, tuple[bytes, str, int | None]] = {
    "a.tsv is empty": (b"", "nothing to read", None),
    "a.txt has blank lines only": (b"\n  \n", "nothing to read", None),
    "a.tsv has a header only": (b"id\ttext\n", "nothing to read", None),
    "a.tsv has a wrong number of columns": (b"1\tone\n2\n", "line 2: wrong number of columns (1 instead of 2)", 1),
    "a.tsv is no UTF-8": (b"1\tone\n2\t\xff\n", "line 2: not UTF-8 (in another encoding all of it", 1),
    "a.tsv has an empty text": (b"1\tone\n2\t \n", "line 2: empty text", 1),
    "a.tsv has an empty id": (b"1\tone\n\ttwo\n", "line 2: no id", 1),
    "a.tsv has an id twice": (b"1\tone\n1\ttwo\n", "line 2: an id for the second time (1)", 1),
    "a.tsv has too many columns": (b"1\t2\t3\t4\n", "which column is the text (0 to 3)?", None),
    "a.csv has other columns": (b"id,title,words\n1,a,b\n", "which column is the text (id, title, words)?", None),
    "a.jsonl is no JSON": (b'{"id": 1, "text": "one"}\n{"id": 2\n', "line 2: no JSON", 1),
    "a.jsonl lacks a column": (b'{"id": 1, "text": "one"}\n{"id": 2}\n', "line 2: a column is missing (text)", 1),
    "a.jsonl has a number for a text": (
        b'{"id": 1, "text": "one"}\n{"id": 2, "text": 3}\n', "line 2: text that is no string (3)", 1,
    ),
    "a.txt.xz is damaged": (b"\xfd7zXZ\x00nonsense", "damaged", None),
    "a.parquet is no parquet": (b"PAR1 or not", "no parquet file", None),
}  # fmt: skip

QRELS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "no judgements"),
    "a header only": (b"query-id\tcorpus-id\tscore\n", "no judgements"),
    "two columns": (b"q1 d1\n", "line 1: 2 columns"),
    "five columns": (b"q1 0 d1 1 x\n", "line 1: 5 columns"),
    "a line that is short": (b"q1 0 d1 1\nq1 d2 0\n", "line 2: 3 columns"),
    "no number": (b"q1 0 d1 1\nq1 0 d2 yes\n", "line 2: the grade 'yes' is no number"),
    "not finite": (b"q1 0 d1 nan\n", "line 1: the grade 'nan' is no finite number"),
    "two grades": (b"q1 0 d1 1\nq1 0 d1 2\n", "line 2: document d1 has two different grades for query q1"),
    "not UTF-8": (b"q1 0 d1 1\nq\xff 0 d1 2\n", "line 2: not UTF-8 (in another encoding all of it"),
    "an empty id": (b"q1\t\t1\n", "line 1: an id is empty"),
}
