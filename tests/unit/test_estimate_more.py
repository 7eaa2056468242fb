"""Held against models that transformers built and runs on an H200 (tests/bench/estimate_more.py); and what is asked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkhost.base.units import GIB, Mistake
from sparkhost.tools.estimate.cli import main
from sparkhost.tools.estimate.shape import parse, read
from sparkhost.tools.estimate.terms import Run, estimate
from tests.bench.estimate_more import ROWS, SHAPES, known, on_gpu, run_of, shape_of, trained_part, words

REFUSED = {"gemma-3n-e4b", "granite-4.0-h-1b"}
"""Granite's shape has no layer_types here, without which it is not known which layers are attention."""
COUNTED = {
    "falcon-h1-1.5b",
    "falcon-mamba-7b",
    "jamba-mini",
    "lfm2-1.2b",
    "modernbert-base",
    "nemotron-3-nano-30b-a3b",
    "qwen3-next-80b-a3b",
    "t5-base",
    "whisper-large-v3",
}
"""Of which the parameters are known, and no more."""
NEARLY = {"deepseek-v2-lite", "deepseek-v3", "gpt-oss-20b", "gpt-oss-120b", "olmo-3-7b"}
"""Some norms and biases of these are not counted."""
FAR = {
    "qwen3-8b sft, adamw-fused 4 varied False",
    "qwen3-8b lora, adamw-fused, r16 attention, no checkpointing 2 constant False",
}
"""docs/estimate.md has them: -3.7 % and +3.5 %."""
HOST = ["--memory", "119G", "--rest", "6G", "--headroom", "16G"]


def name(row: dict[str, Any]) -> str:
    return f"{row['shape']} {words(row)} {row['batch']} {row['lengths']} {row['segments']}"


@pytest.mark.parametrize("model", sorted(set(SHAPES) - REFUSED))
def test_parameters_are_counted_as_transformers_counts_them(model: str) -> None:
    near = 0.0005 if model in NEARLY else 0
    assert shape_of(model).parameters == pytest.approx(SHAPES[model]["parameters"], rel=near, abs=0)


@pytest.mark.parametrize("model", sorted(REFUSED))
def test_what_is_not_understood_is_refused_for_what_it_is_and_not_for_a_missing_key(model: str) -> None:
    with pytest.raises(Mistake, match=r"model_type: got '\w+': .*: measure with spark-profile"):
        shape_of(model)


@pytest.mark.parametrize("row", known(), ids=name)
def test_low_is_what_was_in_use(row: dict[str, Any]) -> None:
    low, _ = on_gpu(trained_part(row["shape"]), run_of(row))
    assert low == pytest.approx(row["allocated"], rel=0.04 if name(row) in FAR else 0.005)


@pytest.mark.parametrize("row", known(), ids=name)
def test_plan_is_never_below_what_was_reserved(row: dict[str, Any]) -> None:
    _, plan = on_gpu(trained_part(row["shape"]), run_of(row))
    assert plan >= 0.97 * row["reserved"]


@pytest.mark.parametrize("row", [row for row in known() if row["segments"]], ids=name)
def test_with_expandable_segments_plan_is_near_what_was_reserved(row: dict[str, Any]) -> None:
    _, plan = on_gpu(trained_part(row["shape"]), run_of(row))
    assert plan <= 1.05 * row["reserved"]


@pytest.mark.parametrize("row", [row for row in known() if row["lengths"] == "constant"], ids=name)
def test_with_constant_lengths_plan_is_near_what_was_reserved(row: dict[str, Any]) -> None:
    _, plan = on_gpu(trained_part(row["shape"]), run_of(row))
    assert plan <= 1.2 * row["reserved"]


@pytest.mark.parametrize("row", [row for row in known() if "trained" in row], ids=name)
def test_adapters_are_counted_as_peft_counts_them(row: dict[str, Any]) -> None:
    shape, run = trained_part(row["shape"]), run_of(row)
    if run.adapted:
        assert shape.adapters(run.rank, run.targets) == row["trained"]


def test_a_hybrid_is_refused_as_one() -> None:
    with pytest.raises(Mistake, match="layers of Mamba, linear attention or convolutions"):
        shape_of("granite-4.0-h-1b")


def test_a_hybrid_whose_layers_are_named_is_counted() -> None:
    types = ["mamba"] * 36 + ["attention"] * 4
    config = {**SHAPES["granite-4.0-h-1b"]["config"], "layer_types": types}
    assert parse(config, "f").parameters == SHAPES["granite-4.0-h-1b"]["parameters"]


@pytest.mark.parametrize("model", sorted(COUNTED))
def test_of_what_is_counted_only_it_is_never_said_that_it_fits(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [config(tmp_path, model), "--memory", "4000G", "--rest", "6G", "--headroom", "1G"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "not known whether it fits" in said
    assert "at least this much" in said
    assert main([*words, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["fits"] is None
    assert main([*words[:1], "--memory", "2G", "--rest", "1G", "--headroom", "1M"]) == 1
    for more in (["--method", "lora"], ["--method", "serve"], ["--total-batch", "8"]):
        assert main([*words, *more]) == 2
        error = capsys.readouterr().err
        assert "on more than is known of" in error
        assert error.count("\n") == 1


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 10**9),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers(0, 3), max_size=3),
    st.dictionaries(st.sampled_from(["model_type", "hidden_size"]), st.integers(0, 9), max_size=2),
)


@settings(max_examples=300, deadline=None)
@given(model=st.sampled_from(sorted(SHAPES)), data=st.data())
def test_whatever_a_file_says_is_counted_or_refused_in_one_line(model: str, data: st.DataObject) -> None:
    config = dict(SHAPES[model]["config"])
    keys = st.sampled_from(
        [*config, "text_config", "vision_config", "quantization_config", "num_experts", "n_positions"]
    )
    config.update(data.draw(st.dictionaries(keys, VALUES, min_size=1, max_size=3)))
    try:
        shape = parse(config, "f")
    except Mistake as mistake:
        said = str(mistake)
        assert "\n" not in said
        return
    assert shape.parameters > 0
    assert estimate(shape, Run("sft", 1, 64), 0).high > 0


def test_no_row_is_left_out_but_those_of_refused_models() -> None:
    assert {row["shape"] for row in ROWS if row not in known() and row["checkpointing"]} <= REFUSED | COUNTED


def run(optimizer: Any, **more: Any) -> int:
    return estimate(shape_of("qwen3-8b"), Run("sft", 1, 256, loss="inside", optimizer=optimizer, **more), 0).low


def test_optimizers_differ_by_what_they_keep() -> None:
    parameters = SHAPES["qwen3-8b"]["parameters"]
    assert run("adamw") - run("adamw-fused") == 2 * parameters
    assert run("adamw-fused") - run("sgd") == 4 * parameters
    assert run("paged-adamw-8bit") == run("adamw-8bit") < run("adamw-fused") - 1.9 * parameters


def test_weights_and_moments_have_no_share_of_the_allocator() -> None:
    shape, sizes = shape_of("qwen3-8b"), []
    for optimizer in ("sgd", "adamw-fused"):
        found = estimate(shape, Run("sft", 1, 256, loss="inside", optimizer=optimizer), 0)
        sizes.append(found.high - found.low)
    assert sizes[0] == sizes[1]


def test_a_quantised_base_has_small_linear_maps_and_embeddings_in_fp32() -> None:
    shape = shape_of("llama-3.1-8b-bnb-4bit")
    assert shape.base == "nf4"
    low = estimate(shape, Run("lora", 1, 256, base=shape.base), 0)
    frozen = next(term.low for term in low.terms if term.name == "weights")
    assert 7.4 * GIB < frozen < 7.7 * GIB


def config(folder: Path, model: str) -> str:
    (folder / "config.json").write_text(json.dumps(SHAPES[model]["config"]))
    return str(folder)


def test_a_name_is_looked_for_in_the_cache_and_asked_for_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert main(["Qwen/Qwen3-8B", *HOST]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "run 'hf download Qwen/Qwen3-8B config.json'" in error
    for age, model in ((100, "qwen3-0.6b"), (1, "qwen3-8b")):
        snapshot = tmp_path / f"models--Qwen--Qwen3-8B/snapshots/{age}"
        snapshot.mkdir(parents=True)
        os.utime(Path(config(snapshot, model)) / "config.json", (2000 - age, 2000 - age))
    assert read(Path("Qwen/Qwen3-8B")).parameters == SHAPES["qwen3-8b"]["parameters"]


@pytest.mark.parametrize("bytes_each", [2, 4])
def test_an_index_that_agrees_is_no_mistake(tmp_path: Path, bytes_each: int) -> None:
    config(tmp_path, "qwen3-8b")
    assert read(tmp_path).stored == 2 * SHAPES["qwen3-8b"]["parameters"]
    total = SHAPES["qwen3-8b"]["parameters"] * bytes_each
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": total}}))
    assert read(tmp_path).stored == total


def test_a_count_that_its_index_denies_is_refused(tmp_path: Path) -> None:
    config(tmp_path, "qwen3-8b")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 17 * 10**9}}))
    with pytest.raises(Mistake, match="total_size: got 17000000000, which is not 2 or 4 bytes"):
        read(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000])
def test_a_broken_index_is_one_line_with_its_name(tmp_path: Path, text: str) -> None:
    config(tmp_path, "qwen3-8b")
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(Mistake, match=r"index\.json: (is no JSON|expected a mapping): download it anew$"):
        read(tmp_path)


@pytest.mark.parametrize(
    "text", ["{}", '{"metadata": 3}', '{"metadata": {"total_size": 0}}', '{"metadata": {"total_size": "x"}}']
)
def test_an_index_without_a_size_says_nothing(tmp_path: Path, text: str) -> None:
    config(tmp_path, "qwen3-8b")
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert read(tmp_path).parameters == SHAPES["qwen3-8b"]["parameters"]


@pytest.mark.parametrize(
    ("model", "words", "says"),
    [
        ("qwen3-30b-a3b", ["--method", "lora"], "--targets: adapters on the experts of qwen3_moe are not known"),
        ("gemma-3-1b", ["--no-checkpointing"], "--no-checkpointing: what gemma3_text keeps was not measured"),
        ("qwen3-8b", ["--method", "lora", "--mixed"], "--mixed: LoRA's frozen weights are not held in fp32"),
        ("llama-3.1-8b-bnb-4bit", [], "nf4 weights are trained with adapters only"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    tmp_path: Path, model: str, words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([config(tmp_path, model), *HOST, *words]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("qwen3-8b", ["--loss", "inside", "--lengths", "packed"]),
        ("qwen3-8b", ["--method", "dpo", "--lora", "--rank", "16"]),
        ("qwen3-30b-a3b", ["--method", "lora", "--targets", "attention"]),
        ("qwen3-32b", ["--method", "lora", "--base", "nf4", "--optimizer", "paged-adamw-8bit"]),
    ],
)
def test_what_fits_a_spark_is_not_talked_out_of(tmp_path: Path, model: str, words: list[str]) -> None:
    assert main([config(tmp_path, model), *HOST, *words, "--batch", "1"]) == 0


def test_lengths_that_vary_need_the_segments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [config(tmp_path, "llama-3.1-8b"), *HOST, "--method", "lora", "--length", "2048", "--batch", "8", "--json"]
    plans = []
    for allocator in ("expandable", "default"):
        main([*words, "--loss", "inside", "--allocator", allocator])
        plans.append(json.loads(capsys.readouterr().out)["rows"][0]["plan"])
    assert plans[1] > 1.8 * plans[0]


def test_two_phases_reserve_no_more_than_both() -> None:
    shape = shape_of("qwen3-8b")
    found = estimate(shape, Run("sft", 1, 64, loss="inside"), 0)
    assert found.peak == "optimizer"
    assert found.high - found.low < 0.17 * 2 * shape.parameters + 64 * shape.vocabulary * 14


def test_memory_alone_is_enough(tmp_path: Path) -> None:
    assert main([config(tmp_path, "qwen3-0.6b"), "--memory", "1000G", "--batch", "1"]) == 0
