"""Job files."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import instances

from memplan import JobFileError, _yaml
from memplan.jobfile import dump, load, parse
from memplan.shorthand import parse_bytes, parse_shape
from memplan.types import (
    Activation,
    ActivationType,
    AllocatorSettings,
    CatalogModel,
    Convolution,
    DataType,
    Dropout,
    Embedding,
    Flatten,
    GpuTarget,
    InputTensor,
    Layer,
    LayerStack,
    Linear,
    Model,
    MultiHeadAttention,
    Normalization,
    NormalizationType,
    Optimizer,
    OptimizerType,
    PlanJobRequest,
    Pooling,
    PoolingType,
    Precision,
    Recurrent,
    RecurrentType,
    Reshape,
    Residual,
    SequencePooling,
    SequencePoolingType,
    TrainingJob,
    TransformerEncoderLayer,
    Upsample,
)

thorough = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def mistakes(text: str) -> dict[str, str]:
    with pytest.raises(JobFileError) as caught:
        parse(text)
    return {v.field: v.description for v in caught.value.violations}


def layers(text: str) -> tuple[Layer, ...]:
    stack = parse(f"model:\n  layers:\n{text}").job.model.layer_stack
    assert stack is not None
    return stack.layers


class TestRoundTrip:
    @pytest.mark.parametrize("style", ["yaml", "json"])
    @thorough
    @given(request=instances(PlanJobRequest))
    def test_what_is_dumped_loads_equal(self, style: str, request: PlanJobRequest) -> None:
        assert parse(dump(request, style=style)) == request

    @thorough
    @given(layer=instances(Layer))
    def test_layers(self, layer: Layer) -> None:
        job = TrainingJob(model=Model(layer_stack=LayerStack(layers=(layer, layer))))
        assert parse(dump(PlanJobRequest(job=job))).job == job

    @settings(thorough, max_examples=500)
    @given(text=st.text(string.digits + "+-_.:eExXoOaAbB~<=nulNyYtTrRfFiI \n#'\"", max_size=8))
    def test_any_text_stays_text_in_any_yaml(self, text: str) -> None:
        document = _yaml.dump({"a": text})
        assert _yaml.load(document) == {"a": text}
        assert yaml.safe_load(document) == {"a": text}

    @settings(thorough, max_examples=300)
    @given(number=st.integers() | st.floats(allow_nan=False))
    def test_numbers(self, number: float) -> None:
        read = _yaml.load(_yaml.dump([number]))
        assert read == [number]
        assert type(read[0]) is type(number)

    def test_dumps_are_short(self) -> None:
        request = PlanJobRequest(
            job=TrainingJob(
                model=Model(catalog=CatalogModel(name="torchvision/resnet50")),
                inputs=(InputTensor(shape=(3, 224, 224)), InputTensor(name="m", shape=(2,))),
                optimizer=Optimizer(type=OptimizerType.ADAM),
                precision=Precision.AMP_BF16,
                micro_batch_size=64,
            ),
            gpus=(GpuTarget(gpu_type="nvidia-t4", free_bytes=12 << 30),),
            global_batch_size=1024,
        )
        assert dump(request) == (
            "model: torchvision/resnet50\n"
            "inputs:\n- 3x224x224\n- m=2\n"
            "optimizer: adam\n"
            "precision: amp-bf16\n"
            "micro_batch_size: 64\n"
            "gpus:\n- nvidia-t4:12GiB\n"
            "global_batch_size: 1024\n"
        )

    def test_layer_stacks_are_short(self) -> None:
        text = (
            "model:\n  layers:\n"
            "  - flatten\n"
            "  - linear: 128\n"
            "  - relu\n"
            "  - name: last\n    linear:\n      out_features: 10\n      bias: false\n"
        )
        assert dump(parse(text)) == text


class TestShorthands:
    def test_the_example(self) -> None:
        text = """
            model: torchvision/resnet50
            inputs: [3x224x224, "ids=512:int64", 512:int64, [4, 5], 7, {shape: 2x2, dtype: bool}]
            optimizer: adam
            batch_size: 64
            gpus: [nvidia-t4, "nvidia-l4: 11.5 GiB", {gpu_type: x, free_bytes: 1MiB}]
            allocator: expandable_segments:True,max_split_size_mb:128
            global_batch_size: 1024
            data_parallel_size: 2
            headroom_fraction: 1e-1
            confidence: 0.95
        """
        request = parse(text)
        assert request == PlanJobRequest(
            job=TrainingJob(
                model=Model(catalog=CatalogModel(name="torchvision/resnet50")),
                inputs=(
                    InputTensor(shape=(3, 224, 224)),
                    InputTensor(name="ids", shape=(512,), dtype=DataType.INT64),
                    InputTensor(shape=(512,), dtype=DataType.INT64),
                    InputTensor(shape=(4, 5)),
                    InputTensor(shape=(7,)),
                    InputTensor(shape=(2, 2), dtype=DataType.BOOL),
                ),
                optimizer=Optimizer(type=OptimizerType.ADAM),
                allocator=AllocatorSettings(expandable_segments=True, max_split_size_mb=128),
                micro_batch_size=64,
            ),
            gpus=(
                GpuTarget(gpu_type="nvidia-t4"),
                GpuTarget(gpu_type="nvidia-l4", free_bytes=23 << 29),
                GpuTarget(gpu_type="x", free_bytes=1 << 20),
            ),
            global_batch_size=1024,
            data_parallel_size=2,
            headroom_fraction=0.1,
            confidence=0.95,
        )

    def test_one_instead_of_a_list(self) -> None:
        request = parse("model: a/b\ninputs: 3x4\ngpus: nvidia-t4\n")
        assert request.job.inputs == (InputTensor(shape=(3, 4)),)
        assert request.gpus == (GpuTarget(gpu_type="nvidia-t4"),)

    def test_catalog_models(self) -> None:
        model = parse("model: {name: transformers/bert, config: {layers: 2}, task: masked-lm}")
        catalog = CatalogModel(name="transformers/bert", config={"layers": 2}, task="masked-lm")
        assert model.job.model == Model(catalog=catalog)

    @pytest.mark.parametrize("text", ["3", ":int64", "x=:bool"])
    def test_scalar_inputs(self, text: str) -> None:
        [tensor] = parse(f"inputs: ['{text}']").job.inputs
        assert tensor.shape == ((3,) if text == "3" else ())

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("flatten", Layer(flatten=Flatten())),
            ("flatten:", Layer(flatten=Flatten())),
            ("linear: 128", Layer(linear=Linear(out_features=128))),
            (
                "conv: {out_channels: 32, kernel_size: 3, padding: same, bias: false}",
                Layer(
                    convolution=Convolution(
                        out_channels=32, kernel_size=(3,), same_padding=True, bias=False
                    )
                ),
            ),
            (
                "convolution: {out_channels: 32, kernel_size: 3x5, stride: [2, 1]}",
                Layer(convolution=Convolution(out_channels=32, kernel_size=(3, 5), stride=(2, 1))),
            ),
            (
                "conv-transpose: {out_channels: 1, kernel_size: 2}",
                Layer(transposed_convolution=Convolution(out_channels=1, kernel_size=(2,))),
            ),
            ("max_pool: 2", Layer(pooling=Pooling(type=PoolingType.MAX, kernel_size=(2,)))),
            (
                "adaptive_avg_pool",
                Layer(pooling=Pooling(type=PoolingType.ADAPTIVE_AVERAGE)),
            ),
            ("batch_norm", Layer(normalization=Normalization(type=NormalizationType.BATCH))),
            (
                "group_norm: 8",
                Layer(normalization=Normalization(type=NormalizationType.GROUP, num_groups=8)),
            ),
            ("dropout: 0.5", Layer(dropout=Dropout(p=0.5))),
            ("dropout", Layer(dropout=Dropout())),
            ("relu", Layer(activation=Activation(type=ActivationType.RELU))),
            (
                "leaky-relu: {inplace: true}",
                Layer(activation=Activation(type=ActivationType.LEAKY_RELU, inplace=True)),
            ),
            ("activation: gelu", Layer(activation=Activation(type=ActivationType.GELU))),
            (
                "embedding: {num_embeddings: 10, embedding_dim: 4}",
                Layer(embedding=Embedding(num_embeddings=10, embedding_dim=4)),
            ),
            ("attention: 8", Layer(multi_head_attention=MultiHeadAttention(num_heads=8))),
            (
                "transformer_encoder: {num_heads: 8, norm_first: true}",
                Layer(
                    transformer_encoder_layer=TransformerEncoderLayer(num_heads=8, norm_first=True)
                ),
            ),
            ("lstm: 256", Layer(recurrent=Recurrent(type=RecurrentType.LSTM, hidden_size=256))),
            (
                "gru: {hidden_size: 8, num_layers: 2}",
                Layer(recurrent=Recurrent(type=RecurrentType.GRU, hidden_size=8, num_layers=2)),
            ),
            (
                "residual: [relu, {linear: 4}]",
                Layer(
                    residual=Residual(
                        body=(
                            Layer(activation=Activation(type=ActivationType.RELU)),
                            Layer(linear=Linear(out_features=4)),
                        )
                    )
                ),
            ),
            ("upsample: 2", Layer(upsample=Upsample(scale_factor=2))),
            (
                "sequence_pooling: last",
                Layer(sequence_pooling=SequencePooling(type=SequencePoolingType.LAST)),
            ),
            ("reshape: 3x-1", Layer(reshape=Reshape(shape=(3, -1)))),
            ("reshape: 12", Layer(reshape=Reshape(shape=(12,)))),
            (
                "{name: x, repeat: 3, linear: 4}",
                Layer(name="x", repeat=3, linear=Linear(out_features=4)),
            ),
        ],
    )
    def test_layers(self, text: str, expected: Layer) -> None:
        assert layers(f"  - {text}\n") == (expected,)

    def test_a_list_is_a_layer_stack(self) -> None:
        assert parse("model: [flatten, {linear: 1}]") == parse(
            "model: {layers: [flatten, {linear: 1}]}"
        )

    @pytest.mark.parametrize(
        ("text", "size"),
        [("12GiB", 12 << 30), ("1.5 mib", 3 << 19), ("2GB", 2 * 10**9), ("7", 7), ("8b", 8)],
    )
    def test_sizes(self, text: str, size: int) -> None:
        assert parse_bytes(text) == size

    @pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "1TiB", "1e9", "1 2"])
    def test_no_sizes(self, text: str) -> None:
        with pytest.raises(ValueError, match="no size"):
            parse_bytes(text)

    @pytest.mark.parametrize("text", ["3x", "a", "3.5", "3 4", "x"])
    def test_no_shapes(self, text: str) -> None:
        with pytest.raises(ValueError, match="no shape"):
            parse_shape(text)


class TestMistakes:
    def test_all_at_once_with_paths_and_remedies(self) -> None:
        found = mistakes("""
            modle: x
            model:
              layers: [liner, {linear: 3, conv: 4, conv_transpose: 1}, {conv: 3, convolution: {}}]
            inputs: [3xx4, {shpe: 3}, "a=b=c", 512:int46]
            optimizer: adm
            precision: fp33
            loop: {zero_grad: no, accumulation_steps: many}
            allocator: max_split_size_mb
            batch_size: yes
            gpus: ["nvidia-t4:12"  , "nvidia-t4:12 buckets"]
            headroom_fraction: 5%
        """)
        assert list(found) == [
            "modle",
            "model.layer_stack.layers[0]",
            "model.layer_stack.layers[1]",
            "model.layer_stack.layers[2]",
            "inputs[0]",
            "inputs[1].shpe",
            "inputs[2]",
            "inputs[3].dtype",
            "optimizer.type",
            "precision",
            "loop.zero_grad",
            "loop.accumulation_steps",
            "allocator",
            "micro_batch_size",
            "gpus[1]",
            "headroom_fraction",
        ]
        assert found["modle"] == "unknown field; did you mean model?"
        assert "did you mean linear?" in found["model.layer_stack.layers[0]"]
        assert "give only one of linear, convolution, transposed" in " ".join(found.values())
        assert "more than one convolution" in found["model.layer_stack.layers[2]"]
        assert "3x224x224" in found["inputs[0]"]
        assert "did you mean shape?" in found["inputs[1].shpe"]
        assert "did you mean int64?" in found["inputs[3].dtype"]
        assert "rmsprop" in found["optimizer.type"]
        assert "before-forward" in found["loop.zero_grad"]
        assert "max_split_size_mb:128" in found["allocator"]
        assert "12GiB" in found["gpus[1]"]

    def test_the_message_lists_them(self) -> None:
        with pytest.raises(JobFileError, match=r"job has 2 mistakes:\n  a: unknown.*\n  b: ") as e:
            parse("a: 1\nb: 2\n", source="job")
        assert len(e.value.violations) == 2

    def test_both_names_of_the_batch_size(self) -> None:
        found = mistakes("batch_size: 3\nmicro_batch_size: 3\noptimizer: x\n")
        assert list(found) == ["batch_size", "optimizer.type"]

    def test_a_shorthand_says_the_type_already(self) -> None:
        assert "leave it out" in str(mistakes("model: [{relu: {type: gelu}}]"))
        assert "no single value" in str(mistakes("model: [{batch_norm: 3}]"))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is empty"),
            ("- a", "no fields"),
            ("text", "no fields"),
            ("a: [", "no YAML"),
            ("model: a\nmodel: b", "there twice"),
            ('{"model": "a", "model": "b"}', "there twice"),
            ("a: !!python/name:os.system", "no YAML"),
            ("a: " + "[" * 1200, "no YAML"),
            ('{"a": ' + "[" * 100_000, "cannot be read"),
            ("a: !!float x", "no YAML"),
            ("{'a': " + "9" * 5000 + "}", "no YAML"),
            ('{"a": ' + "9" * 5000 + "}", "cannot be read"),
        ],
    )
    def test_no_job_file_at_all(self, text: str, message: str) -> None:
        with pytest.raises(JobFileError, match=message):
            parse(text)

    def test_a_file_that_grows_when_read(self) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
        with pytest.raises(JobFileError, match="more than 100,000 values"):
            parse("\n".join(lines))

    def test_a_file_that_contains_itself(self) -> None:
        with pytest.raises(JobFileError, match="more than"):
            parse("model: &a [{residual: *a}]")

    def test_files(self, tmp_path: Path) -> None:
        path = tmp_path / "job.yaml"
        with pytest.raises(JobFileError, match=r"job\.yaml cannot be read: No such file"):
            load(path)
        with pytest.raises(JobFileError, match="cannot be read: Is a directory"):
            load(tmp_path)
        path.write_bytes(b"model: \xff")
        with pytest.raises(JobFileError, match="not UTF-8"):
            load(path)
        path.write_bytes(b"#" * (5 << 20))
        with pytest.raises(JobFileError, match="larger than 4 MiB"):
            load(path)
        path.write_bytes(b"\xef\xbb\xbfmodel: a/b\n")
        assert load(path).job.model == Model(catalog=CatalogModel(name="a/b"))


class TestPlainScalars:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("no", "no"),
            ("on", "on"),
            ("y", "y"),
            ("12:30", "12:30"),
            ("010", 10),
            ("0o10", 8),
            ("0x10", 16),
            ("1_000", "1_000"),
            ("1e-2", 0.01),
            ("2001-01-01", "2001-01-01"),
            ("=", "="),
            ("true", True),
            ("~", None),
            ("", None),
            (".inf", float("inf")),
            ("3x224x224", "3x224x224"),
        ],
    )
    def test_are_those_of_yaml_1_2(self, text: str, value: Any) -> None:
        read = _yaml.load(f"a: {text}")["a"]
        assert read == value
        assert type(read) is type(value)

    def test_json_that_yaml_cannot_read(self) -> None:
        text = json.dumps({"model": {"name": "a/b", "config": {"x": "\U0001f600\t"}}}, indent="\t")
        catalog = parse(text).job.model.catalog
        assert catalog is not None
        assert catalog.config == {"x": "\U0001f600\t"}

    def test_flow_yaml_is_not_taken_for_json(self) -> None:
        assert parse("{model: a/b}").job.model.catalog == CatalogModel(name="a/b")
        with pytest.raises(JobFileError, match="no JSON"):
            parse("{model: a/b}", source="job.json")
