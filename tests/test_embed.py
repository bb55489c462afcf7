"""Texts become the vectors that sentence-transformers gives them, in their order, in few shapes."""

import io
import json
import logging
from pathlib import Path

import jax
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from jaxlm import cli
from jaxlm.console import Console
from jaxlm.data.tokenizer import TextTokenizer
from jaxlm.embed import Embedder, _pack
from jaxlm.errors import UserError
from jaxlm.models import BertConfig, Pooling, SentenceEncoder
from jaxlm.parallel.mesh import make_mesh
from jaxlm.verbs import embed as embed_verb
from jaxlm.verbs.embed import write_vectors

from .conftest import make_sentences

TEXTS = [text for text, _ in make_sentences(60, 9)] + ["film", "the plot " * 70, "a warm story " * 22, "good " * 33]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """A sentence encoder of random weights, normalised, that reads 100 tokens."""
    directory = tmp_path_factory.mktemp("encoder") / "model"
    TextTokenizer.load(tiny_model).save(directory, max_length=100)
    config = BertConfig(
        vocab_size=200, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=128, initializer_range=0.5, pooling=Pooling("mean", normalize=True, max_length=100),
    )  # fmt: skip
    SentenceEncoder.save_params(directory, config, SentenceEncoder.initial_params(config, jax.random.key(1)))
    return directory


@pytest.fixture(scope="module")
def embedder(model: Path) -> Embedder:
    return Embedder(str(model), make_mesh(2), batch_size=16)


def test_vectors_are_those_of_sentence_transformers_in_the_order_of_the_texts(model: Path, embedder: Embedder) -> None:
    before = embedder.truncated
    found = embedder(TEXTS)
    reference = SentenceTransformer(str(model), device="cpu")
    assert reference.max_seq_length == embedder.max_length == 100
    np.testing.assert_allclose(found, reference.encode(TEXTS), atol=1e-4)
    assert (found.shape, found.dtype) == ((len(TEXTS), 16), np.float32)
    assert embedder.truncated - before == 1
    assert embedder([]).shape == (0, 16)


def test_few_programs_serve_any_number_of_texts(embedder: Embedder) -> None:
    embedder(TEXTS)
    one = embedder(TEXTS[:1])
    compiled = embedder._embed._cache_size()
    for count in (1, 2, 3, 40):
        np.testing.assert_allclose(embedder(TEXTS[:count])[:1], one, atol=1e-5)
    assert embedder._embed._cache_size() == compiled <= 8


def test_every_text_has_a_place_and_short_ones_fill_what_long_ones_leave() -> None:
    lengths = np.array([*[2] * 60, 40, 40])
    layout, packed = _pack(lengths, row_length=128, slots=8, shorter=32)
    assert packed[lengths > 32].all()
    assert (packed.sum(), layout.rows) == (8, 1)

    lengths = np.random.default_rng(0).integers(2, 65, 300)
    layout, packed = _pack(lengths, row_length=128, slots=8, shorter=32)
    assert packed[lengths > 32].all()
    assert 0 < packed[lengths <= 32].sum() < (lengths <= 32).sum()
    own = lengths[packed]
    assert layout.slots <= 8
    used = np.zeros((layout.rows, 128), int)
    for row, start, length in zip(layout.row, layout.start, own, strict=True):
        used[row, start : start + length] += 1
    assert used.max() == 1
    assert used.sum() == own.sum() > 0.95 * used.size
    assert len(set(zip(layout.row, layout.slot, strict=True))) == len(own)
    longest = np.zeros(layout.rows, int)
    np.maximum.at(longest, layout.row, own)
    assert longest.min() > 32


def test_a_text_alone_has_a_row_of_about_its_length_on_a_cpu(model: Path) -> None:
    alone, few = Embedder(str(model), make_mesh(1)), Embedder(str(model), make_mesh(2))
    shapes = {}
    for count in (5, 20, 35, 60):
        encoded = alone.tokenizer.encode(["good " * count], max_length=100)
        (_, _, batch), (_, _, wide) = next(alone._batches(encoded)), next(few._batches(encoded))
        shapes[count] = batch["input_ids"].shape, wide["input_ids"].shape
    assert shapes == {
        5: ((1, 16), (2, 64)), 20: ((1, 24), (2, 64)), 35: ((1, 40), (2, 128)), 60: ((1, 128), (2, 128))
    }  # fmt: skip


def test_a_single_string_is_no_list_of_texts(embedder: Embedder) -> None:
    with pytest.raises(TypeError, match="a list of texts"):
        embedder("a text")


def test_a_bert_that_does_not_say_how_to_pool_is_averaged_and_that_is_said(
    tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "jaxlm"):
        embedder = Embedder(str(tiny_model), make_mesh(1))
    assert "the mean of its tokens is taken" in caplog.text
    assert embedder.max_length == 64
    with pytest.raises(UserError, match="max_length is 65; it must be at least 3, and the model has 64 positions"):
        Embedder(str(tiny_model), make_mesh(1), max_length=65)


def test_embed_writes_a_numpy_file_whole(
    tmp_path: Path, model: Path, embedder: Embedder, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("".join(f"{text}\n" for text in TEXTS[-8:]))
    output = tmp_path / "vectors.npy"
    assert cli.main(["embed", str(model), "--input", str(tmp_path / "texts.txt"), "--output", str(output)]) == 0
    np.testing.assert_allclose(np.load(output), embedder(TEXTS[-8:]), atol=1e-5)
    assert "1 texts were cut to 100 tokens" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts.txt", "vectors.npy"]


def test_many_texts_are_embedded_part_by_part_and_a_failure_leaves_the_old_file(
    tmp_path: Path, embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, path = embedder(TEXTS), tmp_path / "vectors.npy"
    monkeypatch.setattr("jaxlm.embed._AT_ONCE", 5)
    monkeypatch.setattr("jaxlm.verbs.embed._AT_ONCE", 12)
    write_vectors(path, TEXTS, embedder, Console(io.StringIO()))
    np.testing.assert_allclose(np.load(path), expected, atol=1e-5)
    old = path.read_bytes()
    monkeypatch.setattr(embedder, "_embed", None)
    with pytest.raises(TypeError):
        write_vectors(path, TEXTS[::-1], embedder, Console(io.StringIO()))
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == ["vectors.npy"]


def test_embed_prints_the_vectors_of_texts(model: Path, embedder: Embedder, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["embed", str(model), "--text", TEXTS[0], "--text", TEXTS[1]]) == 0
    found = [json.loads(line)["vector"] for line in capsys.readouterr().out.splitlines()]
    np.testing.assert_allclose(found, embedder(TEXTS[:2]), atol=1e-5)


def test_the_dtype_is_what_products_are_computed_in(model: Path, embedder: Embedder) -> None:
    exact, rough = embedder(TEXTS), Embedder(str(model), make_mesh(1), dtype="bfloat16")(TEXTS)
    assert 1e-4 < np.abs(exact - rough).max() < 5e-2
    assert cli.main(["embed", str(model), "--text", TEXTS[0], "--dtype", "bfloat17"]) == 2


def test_embed_takes_the_dtype_from_the_command_line(
    model: Path, embedder: Embedder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["embed", str(model), "--text", TEXTS[1], "--dtype", "bfloat16"]) == 0
    found = json.loads(capsys.readouterr().out)["vector"]
    assert 1e-4 < np.abs(found - embedder(TEXTS[1:2])).max() < 5e-2


def test_vectors_say_which_rows_they_are_of_where_some_are_left_out(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "one"}\n{"text": ""}\n{"text": "two"}\n')
    told = ["embed", str(model), "--input", str(tmp_path / "a.jsonl"), "--output", str(tmp_path / "v.npy")]
    assert cli.main([*told, "--data.bad_rows", "skip"]) == 0
    assert len(np.load(tmp_path / "v.npy")) == 2
    assert (tmp_path / "v.npy.rows").read_text() == "line 1\nline 3\n"
    with monkeypatch.context() as patch:
        patch.setattr(embed_verb, "write_vectors", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert cli.main([*told, "--data.bad_rows", "skip"]) == 130
    assert (tmp_path / "v.npy.rows").read_text() == "line 1\nline 3\n"  # the vectors are still there as well
    (tmp_path / "a.jsonl").write_text('{"text": "one", "text_pair": ""}\n{"text": "two", "text_pair": "three"}\n')
    assert cli.main([*told, "--data.text", "text"]) == 0
    assert len(np.load(tmp_path / "v.npy")) == 2
    assert not (tmp_path / "v.npy.rows").exists()


def test_wrong_input_is_one_clear_line_and_leaves_nothing_behind(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    good, pair, empty, broken = (tmp_path / "in" / name for name in ("a.txt", "b.csv", "c.txt", "d.txt"))
    good.write_text("one\ntwo\n")
    pair.write_text("sentence1,sentence2\na,b\n")
    empty.write_text("")
    broken.write_bytes(b"one\n\xff\n")
    output = ["--output", str(tmp_path / "v.npy")]
    cases: list[tuple[list[str], str]] = [
        ([], "which texts?"),
        (["--text", "a", "--input", str(good), *output], "which texts?"),
        (["--text", " "], "a --text is empty"),
        (["--text", "a", *output], "--output is for the vectors of --input"),
        (["--input", str(good)], "--output FILE.npy says where"),
        (["--input", str(good), "--output", str(tmp_path / "v.txt")], "--output FILE.npy says where"),
        (["--input", str(good), "--output", str(tmp_path / "nowhere" / "v.npy")], "there is no directory"),
        (["--input", str(tmp_path / "absent.txt"), *output], "no such file"),
        (["--input", str(empty), *output], "no rows"),
        (["--input", str(broken), *output], "line 2: not UTF-8"),
        (["--input", str(pair), *output], "texts in pairs; choose one column"),
        (["--input", str(pair), "--data.text_pair", "sentence2", *output], "a pair has none"),
        (["--input", str(good), "--data.max_length", "500", *output], "the model has 128 positions"),
        (["--input", str(good), "--batch_size", "0", *output], "--batch_size is 0"),
    ]
    for flags, message in cases:
        assert cli.main(["embed", str(model), *flags]) == 2, flags
        error = capsys.readouterr().err
        assert message in error, (flags, error)
        assert error.startswith("error: ")
        assert error.count("\n") == 1, error
        assert [path.name for path in tmp_path.iterdir()] == ["in"], flags
