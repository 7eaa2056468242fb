"""Serving, held against public start-up logs of vLLM (tests/bench/serve_rows.json); the load; several hosts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkhost.base.units import GIB
from sparkhost.tools.estimate import serve
from sparkhost.tools.estimate.cache import of_sequence
from sparkhost.tools.estimate.cli import main
from sparkhost.tools.estimate.fit import Host
from sparkhost.tools.estimate.fit import row as one_row
from sparkhost.tools.estimate.quantised import stored
from sparkhost.tools.estimate.shape import parse
from sparkhost.tools.estimate.terms import CONTEXT, PROCESS, Run, estimate
from tests.bench.estimate_more import SHAPES, shape_of
from tests.bench.serve import ROWS, activations, available, count, sequence, weights

HOST = ["--memory", "119G", "--rest", "6G", "--headroom", "16G"]
SPARK = Host(119 * GIB, 6 * GIB, 16 * GIB)


def name(row: dict[str, Any]) -> str:
    return f"{row['shape']} {row['gib']}"


def config(folder: Path, model: str, **more: Any) -> str:
    (folder / "config.json").write_text(json.dumps({**SHAPES[model]["config"], **more}))
    return str(folder)


@pytest.mark.parametrize("row", ROWS["weights"], ids=name)
def test_weights_are_as_large_as_vllm_said(row: dict[str, Any]) -> None:
    # A log rounds to a hundredth of a GiB, which is 1 % of the smallest model.
    assert weights(row) == pytest.approx(row["gib"], rel=0.005, abs=0.011)
    assert weights(row) * serve.ROUNDING >= row["gib"]


@pytest.mark.parametrize("row", ROWS["activations"], ids=name)
def test_activations_are_those_of_vllms_own_trial(row: dict[str, Any]) -> None:
    assert activations(row) == pytest.approx(row["gib"], rel=0.01)


@pytest.mark.parametrize("row", ROWS["activations"], ids=name)
def test_what_is_promised_to_the_cache_vllm_had(row: dict[str, Any]) -> None:
    """Never more than it had; and 2 % of the weights less at most."""
    assert row["available"] - 1.3 <= available(row) <= row["available"]


@pytest.mark.parametrize("row", ROWS["tokens"], ids=name)
def test_the_cache_holds_as_many_tokens_as_vllm_said(row: dict[str, Any]) -> None:
    assert count(row) == pytest.approx(row["tokens"], rel=0.012)


@pytest.mark.parametrize("row", ROWS["sequence"], ids=name)
def test_one_sequence_needs_what_vllm_asked_for(row: dict[str, Any]) -> None:
    assert sequence(row) == pytest.approx(row["gib"], rel=0.001)


def test_a_window_is_kept_and_not_the_whole_sequence() -> None:
    """gpt-oss-20b: vLLM asked for 3.1 GiB at 131,072 tokens (12 of its 24 layers see 128 tokens)."""
    shape = shape_of("gpt-oss-20b")
    assert (shape.windowed, shape.window) == (12, 128)
    assert 3.0 * GIB < of_sequence(shape, 131072, 2, 2048) < 3.15 * GIB
    assert of_sequence(shape, 64, 2, 64) == 24 * 64 * 2 * 8 * 64 * 2


def test_layers_are_counted_by_the_file_where_it_says_them() -> None:
    types = ["full_attention"] * 40 + ["sliding_attention"] * 8
    config = {**SHAPES["gemma-3-12b"]["config"]}
    config["text_config"] = {**config["text_config"], "layer_types": types}
    assert parse(config, "f").windowed == 8
    assert shape_of("gemma-3-12b").windowed == 40


def test_a_latent_cache_has_no_heads() -> None:
    shape = shape_of("deepseek-v2-lite")
    assert of_sequence(shape, 1024, 2, 1024) == 1024 * 27 * (512 + 64) * 2


@pytest.mark.parametrize(
    ("found", "each"),
    [
        ({"quant_method": "fp8"}, 1.0),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 0.5625),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, 0.5 + 2.5 / 128),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, 1.0),
    ],
)
def test_linear_maps_are_quantised_and_embeddings_are_not(found: dict[str, Any], each: float) -> None:
    shape = shape_of("qwen3-8b")
    assert stored(shape, found) == int(shape.linear * each) + (shape.parameters - shape.linear) * 2


def test_attention_that_is_left_out_stays_in_bf16() -> None:
    shape = shape_of("qwen3-8b")
    whole, part = ({"quant_method": "fp8", "ignore": names} for names in ([], ["re:.*self_attn.*"]))
    attention = 36 * (4096 * 4096 * 2 + 4096 * 1024 * 2)
    less, more = stored(shape, whole), stored(shape, part)
    assert less is not None
    assert more == less + attention


FORMATS = st.dictionaries(
    st.sampled_from(["quant_method", "quant_algo", "bits", "group_size", "config_groups", "ignore"]),
    st.one_of(
        st.sampled_from(["fp8", "awq", "compressed-tensors", "modelopt", "NVFP4", "new"]),
        st.none(),
        st.integers(-3, 200),
        st.lists(st.integers(), max_size=2),
        st.dictionaries(st.just("group_0"), st.dictionaries(st.just("weights"), st.none() | st.just({"num_bits": 4}))),
    ),
)


@settings(max_examples=200, deadline=None)
@given(FORMATS)
def test_a_format_is_known_or_it_is_not(found: dict[str, Any]) -> None:
    shape = shape_of("qwen3-0.6b")
    size = stored(shape, found)
    assert size is None or 0.3 * shape.parameters < size < 2.1 * shape.parameters


def test_an_unknown_format_is_refused_unless_the_index_says_how_large_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [config(tmp_path, "qwen3-8b", quantization_config={"quant_method": "new"}), *HOST, "--method", "serve"]
    assert main(words) == 2
    assert "quantization_config: its bytes are not known: put" in capsys.readouterr().err
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {"total_size": 6 * GIB}}))
    assert main([*words, "--batch", "1", "--json"]) == 0
    terms = json.loads(capsys.readouterr().out)["rows"][0]["terms"]
    assert next(term["low"] for term in terms if term["name"] == "weights") == 6 * GIB


def test_what_is_to_be_passed_is_what_was_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [config(tmp_path, "qwen3-8b"), *HOST, "--method", "serve", "--length", "32768", "--batch", "4"]
    assert main(words) == 0
    said = capsys.readouterr().out
    cache = 4 * 32768 * 36 * 2 * 1024 * 2
    assert f"--max-num-seqs 4 --kv-cache-memory-bytes {cache} --gpu-memory-utilization 0.30" in said
    assert main([*words, "--cache", "fp8"]) == 0
    assert f"--kv-cache-memory-bytes {cache // 2} --gpu-memory-utilization 0.23 --kv-cache-dtype fp8" in (
        capsys.readouterr().out
    )


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from(["qwen3-0.6b", "llama-3.1-8b", "gpt-oss-20b", "gemma-3-12b", "deepseek-v2-lite"]),
    st.integers(1, 64),
    st.integers(1, 131072),
)
def test_the_share_holds_what_vllm_will_take_and_the_longest_context_fits(model: str, batch: int, length: int) -> None:
    shape, run = shape_of(model), Run("serve", batch, length)
    found = serve.estimate(shape, run, SPARK.total)
    flags = serve.flags(shape, run, SPARK.total)
    outside = CONTEXT + 2 * PROCESS
    if found.high < SPARK.total:
        assert flags.gpu_memory_utilization * SPARK.total >= found.high - outside
        assert (flags.gpu_memory_utilization - 0.011) * SPARK.total < found.high - outside
    most = serve.longest(shape, run, SPARK.room, SPARK.total)
    if most:
        assert serve.estimate(shape, run._replace(length=most), SPARK.total).high <= SPARK.room
    longer = run._replace(length=most + 1024)
    assert serve.estimate(shape, longer, SPARK.total).high > SPARK.room or most + 1024 > (shape.longest or 1 << 20)


def test_a_server_that_does_not_fit_is_told_which_context_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [config(tmp_path, "qwen3-32b"), *HOST, "--method", "serve", "--batch", "8", "--length", "131072"]
    assert main(words) == 1
    said = capsys.readouterr().out
    assert "8 sequences: a context of " in said
    assert "vllm serve" not in said
    assert main([*words[:-1], "1024", "--memory", "40G", "--headroom", "1G"]) == 1
    assert "no context fits on this host now" in capsys.readouterr().out


def test_a_context_is_no_longer_than_the_model_was_made_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [config(tmp_path, "qwen3-0.6b", max_position_embeddings=4096), *HOST, "--method", "serve", "--batch", "1"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "--max-model-len 4096 " in said
    assert "context that fits with 1 sequences: 4096;" in said
    assert main([*words, "--length", "8192"]) == 2
    assert "--length: got 8192, expected 4096 at most" in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--lora"], ["--mixed"], ["--total-batch", "4"], ["--compile"], ["--hosts", "2"]])
def test_a_trainers_option_is_refused_for_a_server(
    option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([config(tmp_path, "qwen3-8b"), *HOST, "--method", "serve", *option]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"spark-estimate: {option[0]}: ")
    assert error.count("\n") == 1


def test_grpo_says_what_is_left_for_the_cache_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [config(tmp_path, "qwen3-0.6b"), *HOST, "--method", "grpo", "--batch", "2"]
    assert main([*words, "--vllm", "0.3"]) == 0
    assert "sequences at a time" in capsys.readouterr().out
    assert main([*words, "--vllm", "0.02"]) == 1
    assert "no room for the cache of one sequence" in capsys.readouterr().out


def test_the_load_is_counted_and_a_second_copy_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Qwen3-32B with LoRA fits a Spark; loaded onto its CPU first it may not."""
    words = [config(tmp_path, "qwen3-32b"), *HOST, "--method", "lora", "--batch", "1"]
    assert main(words) == 0
    assert 'the load may need 124.6 GiB, which does not fit: load with device_map={"": 0}' in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["rows"]
    assert row["load_with_a_copy_fits"] is False
    assert row["load"]["high"] - row["load"]["low"] == 2 * SHAPES["qwen3-32b"]["parameters"]


def test_what_is_divided_among_hosts_is_and_what_is_not_is_not() -> None:
    shape = shape_of("qwen3-8b")
    alone = Run("sft", 32, 1024, loss="inside")
    one, four = (
        {term.name: term.low for term in estimate(shape, run, 0).terms}
        for run in (alone, alone._replace(hosts=4, sharding="fsdp"))
    )
    assert four["weights"] * 4 == pytest.approx(one["weights"])
    assert four["optimizer"] * 4 == pytest.approx(one["optimizer"])
    assert four["exchange"] == 2 * 2 * shape.vocabulary * shape.hidden
    assert four["logits"] == 12 * 32 * 1024 * shape.vocabulary


def test_each_stage_of_zero_divides_more() -> None:
    shape = shape_of("qwen3-8b")
    run = Run("sft", 1, 1024, loss="inside", hosts=4)
    ddp, *stages = (
        estimate(shape, run._replace(sharding=how), 0).low for how in ("ddp", "zero1", "zero2", "zero3", "fsdp")
    )
    assert stages == sorted(stages, reverse=True)
    assert ddp > estimate(shape, run._replace(hosts=1), 0).low
    moments = 12 * shape.parameters // 4
    first = estimate(shape, run._replace(sharding="zero1"), 0)
    assert next(term.low for term in first.terms if term.name == "optimizer") == pytest.approx(moments)


def test_one_of_several_hosts_reads_the_whole_file() -> None:
    shape = shape_of("qwen3-8b")
    found = estimate(shape, Run("sft", 1, 1024, hosts=8, sharding="fsdp"), 0)
    assert found.load.low >= 2 * shape.parameters


def test_more_hosts_fit_what_one_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [config(tmp_path, "qwen3-32b"), *HOST, "--batch", "1"]
    assert main(words) == 1
    assert main([*words, "--hosts", "8"]) == 0
    capsys.readouterr()
    assert main([*words, "--sharding", "zero3"]) == 2
    assert "add --hosts N" in capsys.readouterr().err


def test_orpo_and_kto_differ_by_pairs_and_reference() -> None:
    shape = shape_of("qwen3-0.6b")
    dpo, orpo, kto = (
        {term.name: term for term in estimate(shape, Run(how, 4, 1024, loss="inside"), 0).terms}
        for how in ("dpo", "orpo", "kto")
    )
    assert "reference model" not in orpo
    assert orpo["logits"] == dpo["logits"]
    assert "reference model" in kto
    assert kto["logits"].low * 2 == dpo["logits"].low
    assert kto["KL pass"].high == 4 * 1024 * shape.vocabulary * 2


def test_a_compiled_run_is_planned_with_its_workers() -> None:
    shape, run = shape_of("qwen3-0.6b"), Run("sft", 4, 1024)
    plain, compiled = estimate(shape, run, 0), estimate(shape, run._replace(compiled=True), 0)
    assert compiled.low == plain.low
    assert compiled.high == plain.high + PROCESS


def test_nothing_fits_whose_load_does_not() -> None:
    small = Host(20 * GIB, 2 * GIB, 1 * GIB)
    found = one_row(shape_of("qwen3-8b"), Run("lora", 1, 64, base="nf4", hosts=4, sharding="fsdp"), small)
    assert found.estimate.high < small.room
    assert not found.fits
