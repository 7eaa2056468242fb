"""Held against runs: 44 on a GPU (tests/bench/estimate_rows.json), and a table published for a Spark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparkhost.base.units import GIB, Mistake
from sparkhost.tools.estimate.cli import main
from sparkhost.tools.estimate.fit import Host, choose, table
from sparkhost.tools.estimate.shape import of_count, parse
from sparkhost.tools.estimate.terms import Run, estimate
from tests.bench.estimate import PUBLISHED, measured, on_gpu, published, shape_of
from tests.bench.model_shapes import SHAPES

QWEN = shape_of("Qwen3-0.6B")
SPARK = Host(119 * GIB, 6 * GIB, 16 * GIB)


def name(row: dict[str, Any]) -> str:
    return "-".join(str(row[key]) for key in ("shape", "method", "batch", "length", "checkpointing", "accumulation"))


@pytest.mark.parametrize("row", measured(), ids=name)
def test_the_low_figure_is_what_was_in_use_and_plan_is_near_what_was_reserved(row: dict[str, Any]) -> None:
    low, plan = on_gpu(row)
    assert low == pytest.approx(row["allocated"], rel=0.005)
    assert 0.97 * row["reserved"] <= plan <= row["reserved"] * 1.25


@pytest.mark.parametrize("row", measured(), ids=name)
def test_parameters_are_counted_as_the_model_itself_counts_them(row: dict[str, Any]) -> None:
    shape = shape_of(row["shape"])
    assert shape.parameters == row["parameters"]
    assert row["trained"] == (shape.adapters(64) if row["method"] == "lora" else shape.parameters)


@pytest.mark.parametrize("row", PUBLISHED)
def test_every_published_peak_lies_between_low_and_plan(row: Any) -> None:
    low, _, plan = published(row)
    assert low <= row.peak <= plan


@pytest.mark.parametrize("row", [row for row in PUBLISHED if row.method == "sft"])
def test_the_published_sft_peaks_are_met_to_two_percent(row: Any) -> None:
    assert published(row)[1] == pytest.approx(row.peak, rel=0.02)


@pytest.mark.parametrize("run", [Run("sft", 8, 1024), Run("dpo", 4, 1024)])
def test_the_published_defaults_fit_a_spark(run: Run) -> None:
    assert next(row for row in table(QWEN, run, SPARK) if row.batch == run.batch).fits


def test_a_batch_that_fits_for_certain_is_chosen_and_makes_the_total() -> None:
    choice = choose(QWEN, Run("sft", 1, 1024), SPARK, 48)
    assert choice is not None
    assert choice.batch * choice.accumulation == 48
    assert estimate(QWEN, Run("sft", choice.batch, 1024, accumulation=choice.accumulation), 0).high <= SPARK.room
    assert choose(QWEN, Run("sft", 1, 1 << 20), SPARK, 2) is None


def test_a_fused_loss_leaves_out_what_grows_with_the_vocabulary() -> None:
    plain = estimate(QWEN, Run("sft", 16, 1024, loss="inside"), 0).low
    fused = estimate(QWEN, Run("sft", 16, 1024, loss="fused"), 0).low
    assert plain - fused == 15 * 1024 * QWEN.vocabulary * 12


def test_vllm_takes_its_share_of_the_whole_memory() -> None:
    without, with_it = (estimate(QWEN, Run("grpo", 1, 512, vllm=share), 119 * GIB).low for share in (0.0, 0.5))
    assert with_it - without == 119 * GIB // 2


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"hidden_size": None}, "config.json: hidden_size: got None, expected a whole number above 0"),
        ({"vocab_size": "many"}, "config.json: vocab_size: got 'many'"),
        ({"num_hidden_layers": 0}, "config.json: num_hidden_layers: got 0"),
        ({"num_hidden_layers": True}, "config.json: num_hidden_layers: got True"),
        ({"model_type": "mine"}, "config.json: model_type: got 'mine': its structure is not known here: measure"),
        ({"model_type": "qwen3_5"}, "config.json: model_type: got 'qwen3_5': layers of Mamba, linear attention"),
        ({"model_type": "qwen3_next"}, "config.json: linear_num_value_heads: got None, expected a whole number"),
        ({"model_type": "bert"}, "config.json: model_type: got 'bert': is no decoder"),
        ({"model_type": "qwen3_moe"}, "config.json: num_experts: is missing"),
        ({"model_type": "qwen3_moe", "num_experts": [1]}, "config.json: num_experts: got [1]"),
        (
            {"model_type": "qwen3_moe", "num_experts": 8, "mlp_only_layers": 3},
            "config.json: n_shared_experts, decoder_",
        ),
        ({"model_type": "qwen3_moe", "num_experts": 8, "decoder_sparse_step": "x"}, "config.json: n_shared_experts"),
        ({"vision_config": {"depth": 1}}, "config.json: vision_config: of model_type 'qwen3' it is not known here"),
        ({"model_type": ["qwen3"]}, "config.json: model_type: got \"['qwen3']\": its structure"),
    ],
)
def test_what_is_not_known_is_refused_in_one_line_with_the_key(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(Mistake) as refused:
        parse({**SHAPES["Qwen3-0.6B"], **changed}, "config.json")
    assert str(refused.value).startswith(says)
    assert "\n" not in str(refused.value)


def test_what_was_assumed_is_said() -> None:
    config = {**SHAPES["Llama-3.2-1B"], "model_type": "ministral", "quantization_config": {"quant_method": "fp8"}}
    shape = parse(config, "f")
    assert len(shape.notes) == 2
    assert shape.parameters == shape_of("Llama-3.2-1B").parameters


@pytest.mark.parametrize(("text", "count"), [("600M", 600_000_000), ("1.7B", 1_700_000_000), ("12345", 12345)])
def test_a_number_of_parameters_is_read(text: str, count: int) -> None:
    assert of_count(text).parameters == count


@pytest.mark.parametrize("text", ["", "B", "-1B", "nan", "1e99", "600X", "inf"])
def test_what_is_no_number_of_parameters_is_refused(text: str) -> None:
    with pytest.raises(Mistake, match="expected a number such as 600M"):
        of_count(text)


HOST = ["--memory", "119G", "--rest", "6G"]


def test_the_command_prints_every_term_with_its_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SHAPES["Qwen3-0.6B"]))
    assert main([str(tmp_path), *HOST, "--batch", "8", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert all(term["source"] for term in row["terms"])
    assert sum(term["low"] for term in row["terms"]) == row["low"]
    assert sum(term["high"] for term in row["terms"]) == row["plan"]
    assert main([str(tmp_path), *HOST, "--total-batch", "32"]) == 0
    assert "--per_device_train_batch_size 16 --gradient_accumulation_steps 2" in capsys.readouterr().out


def test_without_a_shape_nothing_is_said_about_batches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--parameters", "8B", *HOST, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["complete"] is False
    assert document["rows"][0]["fits"] is None
    assert main(["--parameters", "8B", *HOST]) == 0
    assert "not known whether it fits" in capsys.readouterr().out
    assert main(["--parameters", "70B", *HOST]) == 1
    assert "does not fit" in capsys.readouterr().out
    assert main(["--parameters", "8B", *HOST, "--total-batch", "8"]) == 2
    assert "give its config.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "expected a model's config.json, or --parameters"),
        (["/nonexistent.json"], "/nonexistent.json: No such file or directory: give the path"),
        (["--parameters", "8B", "--lora"], "--lora: is for --method dpo, kto, orpo and grpo"),
        (["--parameters", "8B", "--base", "nf4"], "nf4 weights are trained with adapters only"),
        (["--parameters", "8B", "--method", "lora"], "--parameters: LoRA's adapters depend on the model's shape"),
        (["--parameters", "8B", "--memory", "119", "--rest", "1G"], "--memory: got '119', expected a size such as"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_a_run_that_is_too_large_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SHAPES["Llama-3.2-1B"]))
    assert main([str(tmp_path), "--memory", "24G", "--rest", "6G", "--batch", "8"]) == 1
    assert "does not fit" in capsys.readouterr().out


@pytest.mark.parametrize(("memory", "kept"), [("119G", 16), ("121G", 16), ("60G", 8)])
def test_what_stays_available_on_another_host_is_a_share_of_its_memory(
    memory: str, kept: int, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--parameters", "8B", "--memory", memory, "--rest", "1G", "--json"])
    assert json.loads(capsys.readouterr().out)["host"]["headroom"] == kept * GIB
