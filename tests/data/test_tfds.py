"""tensorflow-datasets without TensorFlow: a small set of our own, prepared as `array_record` and read back."""

import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxlm.config import DataSettings
from jaxlm.data.sources import read_table
from jaxlm.data.word_files import read_words
from jaxlm.errors import UserError


class TinyReviews(tfds.core.GeneratorBasedBuilder):
    """Three reviews to train on and two to validate."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "sentence": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["negative", "positive"]),
            "idx": np.int32,
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        rows = {"train": [("good ünd fine", 1), ("bad", 0), ("lovely", 1)], "validation": [("dull", 0), ("warm", 1)]}
        return {split: self._generate_examples(found) for split, found in rows.items()}

    def _generate_examples(self, rows: list[tuple[str, int]]):
        for index, (text, label) in enumerate(rows):
            yield index, {"sentence": text, "label": label, "idx": index}


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    TinyReviews(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    real = tfds.builder
    monkeypatch.setattr(tfds, "builder", lambda name, **options: real(name, data_dir=tmp_path, **options))


@pytest.mark.usefixtures("prepared")
def test_a_tfds_set_is_read_with_its_own_label_names_and_without_tensorflow() -> None:
    train = read_table("tfds:tiny_reviews", "train", DataSettings(), label_kind="class")
    dev = read_table("tfds:tiny_reviews", "dev", DataSettings(), label_kind="class")
    assert sorted(zip(train.texts, train.labels or [], strict=True)) == [
        ("bad", "negative"),
        ("good ünd fine", "positive"),
        ("lovely", "positive"),
    ]
    assert sorted(dev.texts) == ["dull", "warm"]
    assert train.label_names == ["negative", "positive"]
    assert "tensorflow" not in sys.modules


@pytest.mark.usefixtures("prepared")
def test_a_split_is_chosen_and_a_missing_one_answered_with_those_there_are() -> None:
    assert len(read_table("tfds:tiny_reviews:validation", "train", DataSettings(), label_kind="class")) == 2
    with pytest.raises(UserError, match=r"has no split 'nosuch'; it has train, validation"):
        read_table("tfds:tiny_reviews:nosuch", "train", DataSettings(), label_kind="class")
    with pytest.raises(UserError, match="has no test split"):
        read_table("tfds:tiny_reviews", "test", DataSettings(), label_kind="class")


def test_a_set_that_cannot_be_downloaded_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tfds.builder
    monkeypatch.setattr(tfds, "builder", lambda name, **options: real(name, data_dir=tmp_path, **options))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(UserError, match=r"tfds:glue/sst2 is not on this machine yet, and \S+ cannot be reached"):
        read_table("tfds:glue/sst2", "train", DataSettings(), label_kind="class")
    assert not any(tmp_path.rglob("*.array_record*"))


class TinyNames(tfds.core.GeneratorBasedBuilder):
    """Two sentences with tagged words, as `conll2003` has them."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        names = tfds.features.ClassLabel(names=["O", "B-PER", "I-PER"])
        features = {"tokens": tfds.features.Sequence(tfds.features.Text()), "ner": tfds.features.Sequence(names)}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict:
        return {
            "train": enumerate([{"tokens": ["Ada", "Löve", "is"], "ner": [1, 2, 0]}, {"tokens": ["x"], "ner": [0]}])
        }

    def _generate_examples(self) -> None:
        raise NotImplementedError("_split_generators gives the rows themselves")


def test_lists_of_words_and_of_numbered_tags_are_read_with_the_tags_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    TinyNames(data_dir=tmp_path, file_format="array_record").download_and_prepare()
    real = tfds.builder
    monkeypatch.setattr(tfds, "builder", lambda name, **options: real(name, data_dir=tmp_path, **options))
    table = read_words("tfds:tiny_names", "train", DataSettings(), tags=True, intents=False)
    assert sorted(zip(table.words, table.tags or [], strict=True)) == [
        (["Ada", "Löve", "is"], ["B-PER", "I-PER", "O"]),
        (["x"], ["O"]),
    ]
    assert "tensorflow" not in sys.modules
