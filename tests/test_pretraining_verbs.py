"""From raw text to a filled mask, by the command line, as the README shows it."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from jaxlm import cli
from jaxlm.data.tokenizer import TextTokenizer

from .data.corpora import WORDS, corpus

PRESET = """from jaxlm.config import *
config = Config(task="masked_lm", model=ModelSettings(hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
                max_position_embeddings=64, initializer_range=0.1, position_init="sinusoidal"),
                data=DataSettings(max_length=32, validation=0.1),
                train=TrainSettings(batch_size=16, eval_every=20, phases=(Phase(20), Phase(10, max_length=64))),
                optim=OptimSettings(learning_rate=5e-3))
"""


def test_the_whole_road_from_text_to_a_filled_mask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text").mkdir()
    corpus(tmp_path / "text")
    (tmp_path / "preset.py").write_text(PRESET)
    text, preset = f"{tmp_path}/text/*.txt", str(tmp_path / "preset.py")
    tokenizer, prepared, run = str(tmp_path / "tokenizer"), str(tmp_path / "prepared"), str(tmp_path / "run")
    assert cli.main(["tokenizer", "--input", text, "--output", tokenizer, "--vocab_size", "130"]) == 0
    assert cli.main(["tokenizer", "--input", text, "--output", tokenizer]) == 2  # it is there already
    command = ["prepare", preset, "--data.train", text, "--data.tokenizer", tokenizer, "--output", prepared]
    assert cli.main([*command, "--workers", "1", "--objective.next_sentence"]) == 0
    flags = ["--data.train", prepared, "--data.dev", prepared, "--objective.next_sentence", "--workdir", run]
    assert cli.main(["train", preset, *flags, "--mesh.devices", "1"]) == 0
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["position_init"] == "sinusoidal"
    dev = json.loads((tmp_path / "run" / "summary.json").read_text())["dev"]
    assert {"perplexity", "accuracy", "next_sentence_accuracy"} <= dev.keys()
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "dev"] == [20, 30]
    for line in (line for line in lines if line["split"] == "train"):
        assert {"input_wait_share", "model_flops_per_second"} <= line.keys()
        assert line["loss"] == pytest.approx(line["loss/masked_lm"] + line["loss/next_sentence"], rel=1e-6)
        assert line["loss/next_sentence"] < 1 < line["loss/masked_lm"]  # two classes, and 130 words
    capsys.readouterr()
    sentence = f"the {WORDS[2]} [MASK] the {WORDS[3]} [MASK]"
    held_out = tmp_path / "held_out.txt"
    held_out.write_text("".join(f"{sentence.replace('[MASK]', word)}\n" for word in ("a", "the", "water", "stone") * 8))
    scores = []
    for size in ("3", "8"):
        evaluate = ["evaluate", f"{run}/model", "--data.test", str(held_out), "--batch_size", size]
        assert cli.main([*evaluate, "--output", str(tmp_path / "scores.json")]) == 0
        scores.append(json.loads((tmp_path / "scores.json").read_text()))
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)  # the same masks in any batch
    output = tmp_path / "filled.jsonl"
    assert cli.main(["fill-mask", f"{run}/model", "--text", sentence, "--top_k", "3", "--output", str(output)]) == 0
    answer = json.loads(output.read_text())
    assert [len(mask) for mask in answer["masks"]] == [3, 3]
    for mask in answer["masks"]:
        probabilities = [guess["probability"] for guess in mask]
        assert probabilities == sorted(probabilities, reverse=True)
        assert 0 < sum(probabilities) <= 1 + 1e-5
    assert answer["masks"][0][0]["token"] in capsys.readouterr().out
    pair = (f"the {WORDS[2]} [MASK]", f"the [MASK] {WORDS[3]}")
    assert cli.main(["predict", f"{run}/model", "--text", pair[0], "--text_pair", pair[1]]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["text"], answer["text_pair"]) == pair
    held_out.write_text("the [MASK]\nthe stone\n[MASK] water\n")
    command = ["predict", f"{run}/model", "--input", str(held_out), "--data.bad_rows", "skip"]
    assert cli.main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["row"] for line in lines] == ["line 1", "line 3"]
    inputs = AutoTokenizer.from_pretrained(f"{run}/model")(*pair, return_tensors="pt")
    with torch.no_grad():
        logits = AutoModelForMaskedLM.from_pretrained(f"{run}/model").eval()(**inputs).logits[0]
    masks = (inputs["input_ids"][0] == TextTokenizer.load(Path(run) / "model").special_ids["mask"]).nonzero()[:, 0]
    for mask, guesses in zip(masks.tolist(), answer["masks"], strict=True):
        assert guesses[0]["probability"] == pytest.approx(float(logits[mask].softmax(-1).max()), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["prepare"], "usage"),
        (["prepare", "PRESET"], "--data.train"),
        (["prepare", "PRESET", "--data.train", "x.txt"], "--output"),
        (["prepare", "PRESET", "--data.train", "x.txt", "--output", "OUT"], "which tokenizer"),
        (["prepare", "PRESET", "--data.train", "x.txt", "--output", "OUT", "--shard", "2/2"], "0 <= i < n"),
        (["prepare", "PRESET", "--data.train", "x.txt", "--output", "OUT", "--data.tokenizer", "TOK"], "no such file"),
        (["tokenizer", "--input", "x.txt", "--output", "OUT"], "no such file"),
        (["tokenizer", "--input", "x.txt", "--output", "OUT", "--vocab_size", "3"], "at least 100"),
        (["fill-mask", "MODEL"], "which text"),
        (["fill-mask", "MODEL", "--text", "a [MASK]"], "no masked-LM head"),
    ],
)
def test_wrong_input_is_one_clear_line(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    (tmp_path / "preset.py").write_text(PRESET)
    places = {"PRESET": tmp_path / "preset.py", "OUT": tmp_path / "out", "MODEL": tiny_model, "TOK": tiny_model}
    assert cli.main([str(places.get(argument, argument)) for argument in arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert said.startswith("error: ")
    assert said.count("\n") == 0
    assert expected in said
    assert not (tmp_path / "out").exists()


def test_characters_of_spaceless_scripts_stand_alone_and_others_do_not(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    thai = "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22"
    trained = TextTokenizer.train([f"{thai} river"] * 5, 200, lowercase=True, spaceless=True)
    ids = trained.tokenize_text(f"{thai}river")
    assert len(ids) == len(thai) + 1
    trained.save(tmp_path, 64)
    assert (
        AutoTokenizer.from_pretrained(tmp_path)(f"{thai}river", add_special_tokens=False)["input_ids"] == ids.tolist()
    )


def test_which_column_is_the_text_is_said_once_a_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "preset.py").write_text(PRESET)
    rows = [{"question": f"what is {number}", "answer": "who knows"} for number in range(40)]
    (tmp_path / "qa.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    text, tokenizer = str(tmp_path / "qa.jsonl"), str(tmp_path / "tokenizer")
    prepare = ["prepare", str(tmp_path / "preset.py"), "--data.train", text, "--data.tokenizer", tokenizer]
    for command in (
        ["tokenizer", "--input", text, "--output", tokenizer, "--vocab_size", "100"],
        [*prepare, "--output", str(tmp_path / "prepared"), "--workers", "1"],
    ):
        assert cli.main(command) == 0
        assert capsys.readouterr().out.count(f"{text}: columns: text question; not used: answer\n") == 1
