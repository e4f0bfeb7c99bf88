"""The codec, over every message of the contract."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import instances

from memplan import types
from memplan.types import (
    CatalogModel,
    DataType,
    InputTensor,
    Layer,
    LayerStack,
    Linear,
    MeasuredProfile,
    Model,
    Optimizer,
    OptimizerType,
    PlanJobRequest,
    PlanJobResponse,
    Precision,
    ProfileMemoryRequest,
    Recurrent,
    Remedy,
    Residual,
    TrainingJob,
)
from memplan.v1 import job_pb2, planner_pb2
from memplan.wire import WireError, from_dict, from_proto, to_dict, to_proto

MESSAGES = sorted(
    (getattr(types, name) for name in types.__all__ if hasattr(getattr(types, name), "__slots__")),
    key=lambda cls: cls.__name__,
)
MESSAGES = [cls for cls in MESSAGES if hasattr(cls, "__dataclass_fields__")]

thorough = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def violations(call: Any, *args: Any) -> dict[str, str]:
    with pytest.raises(WireError) as caught:
        call(*args)
    return dict(caught.value.violations)


def nested(depth: int) -> Layer:
    layer = Layer(linear=Linear(out_features=1))
    for _ in range(depth):
        layer = Layer(residual=Residual(body=(layer,)))
    return layer


class TestProto:
    @pytest.mark.parametrize("cls", MESSAGES)
    @thorough
    @given(data=st.data())
    def test_round_trip(self, cls: type[Any], data: st.DataObject) -> None:
        value = data.draw(instances(cls))
        message = to_proto(value)
        assert message.DESCRIPTOR.name == cls.__name__
        assert from_proto(type(message).FromString(message.SerializeToString())) == value

    def test_agrees_with_protobufs_own_json(self) -> None:
        job = TrainingJob(
            model=Model(catalog=CatalogModel(name="timm/x", config={"num_classes": 10})),
            inputs=(InputTensor(shape=(3, 224, 224), dtype=DataType.UINT8),),
            optimizer=Optimizer(type=OptimizerType.ADAM, amsgrad=True, weight_decay=0.0),
            micro_batch_size=64,
        )
        assert json_format.MessageToDict(to_proto(job), preserving_proto_field_name=True) == {
            "model": {"catalog": {"name": "timm/x", "config": {"num_classes": 10.0}}},
            "inputs": [{"shape": ["3", "224", "224"], "dtype": "DATA_TYPE_UINT8"}],
            "optimizer": {"type": "OPTIMIZER_TYPE_ADAM", "amsgrad": True, "weight_decay": 0.0},
            "micro_batch_size": "64",
        }

    def test_default_instances_are_absent_messages(self) -> None:
        assert to_proto(PlanJobRequest()).SerializeToString() == b""
        assert from_proto(planner_pb2.PlanJobRequest()) == PlanJobRequest()

    def test_an_empty_member_of_a_oneof_is_present(self) -> None:
        layer = Layer(flatten=types.Flatten())
        assert to_proto(layer).WhichOneof("kind") == "flatten"

    def test_absence_of_optional_fields_survives(self) -> None:
        assert from_proto(planner_pb2.PlanJobResponse()).accumulation is None
        plan = PlanJobResponse(accumulation=types.AccumulationPlan())
        assert from_proto(to_proto(plan)) == plan

    def test_numbers_of_a_struct_become_integers_where_exact(self) -> None:
        config = {"a": 10000.0, "b": 0.5, "c": 2.0**60, "d": True, "e": None, "f": [1.0, {"g": 2}]}
        read = from_proto(to_proto(CatalogModel(config=config))).config
        assert [type(read[k]) for k in "abcd"] == [int, float, float, bool]
        assert read == config
        assert type(read["f"][0]) is int

    def test_nan_and_negative_sizes_pass(self) -> None:
        job = TrainingJob(optimizer=Optimizer(momentum=math.nan), micro_batch_size=-(2**62))
        read = from_proto(to_proto(job))
        assert math.isnan(read.optimizer.momentum)
        assert read.micro_batch_size == -(2**62)

    @pytest.mark.parametrize(
        ("seconds", "nanos", "expected"),
        [
            (1, 999, timedelta(seconds=1)),
            (-1, -1500, timedelta(seconds=-1, microseconds=-1)),
            (315_576_000_000, 0, None),
            (2**62, 0, None),
            (0, 10**9, None),
        ],
    )
    def test_durations(self, seconds: int, nanos: int, expected: timedelta | None) -> None:
        message = planner_pb2.ProfileMemoryRequest()
        message.time_limit.seconds, message.time_limit.nanos = seconds, nanos
        if expected is None and seconds != 315_576_000_000:
            assert "out of range" in violations(from_proto, message)["time_limit"]
        else:
            expected = expected or timedelta(seconds=seconds)
            assert from_proto(message).time_limit == expected

    @pytest.mark.parametrize(
        ("seconds", "nanos", "expected"),
        [
            (0, 1999, datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
            (-1, 999_999_999, datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
            (253_402_300_799, 0, datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
            (253_402_300_800, 0, None),
            (-62_135_596_801, 0, None),
            (2**62, 0, None),
            (0, -1, None),
            (0, 10**9, None),
        ],
    )
    def test_timestamps(self, seconds: int, nanos: int, expected: datetime | None) -> None:
        message = planner_pb2.MeasuredProfile()
        message.create_time.seconds, message.create_time.nanos = seconds, nanos
        if expected is None:
            assert violations(from_proto, message) == {"create_time": "the time is out of range"}
        else:
            assert from_proto(message).create_time == expected

    @pytest.mark.parametrize(
        "time",
        [
            datetime(2026, 1, 31),
            datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
            "2026-01-31T08:15:00Z",
        ],
    )
    def test_times_that_cannot_be_sent(self, time: Any) -> None:
        found = violations(to_proto, MeasuredProfile(create_time=time))
        assert found["create_time"].startswith("must be a datetime with a time zone, not")

    def test_messages_that_are_something_else_are_named(self) -> None:
        job: Any = TrainingJob(inputs=((3, 4),), optimizer="adam")  # type: ignore[arg-type]
        assert violations(to_proto, job) == {
            "inputs[0]": "must be an InputTensor, not (3, 4)",
            "optimizer": "must be an Optimizer, not 'adam'",
        }

    def test_times_of_other_zones_are_sent_as_utc(self) -> None:
        east = timezone(timedelta(hours=2))
        profile = MeasuredProfile(create_time=datetime(2026, 1, 31, 1, 30, tzinfo=east))
        read = from_proto(to_proto(profile)).create_time
        assert read.isoformat() == "2026-01-30T23:30:00+00:00"
        assert to_dict(profile, defaults=False) == {"create_time": "2026-01-30T23:30:00Z"}

    def test_unknown_enum_numbers_are_all_reported_with_their_paths(self) -> None:
        message = planner_pb2.PlanJobRequest()
        message.job.precision = 99
        message.job.inputs.add()
        message.job.inputs.add().dtype = -1
        layer = message.job.model.layer_stack.layers.add()
        layer.residual.body.add().activation.type = 77
        assert list(violations(from_proto, message)) == [
            "job.model.layer_stack.layers[0].residual.body[0].activation.type",
            "job.inputs[1].dtype",
            "job.precision",
        ]

    def test_everything_that_cannot_be_sent_is_reported(self) -> None:
        job = TrainingJob(
            model=Model(
                catalog=CatalogModel(name=3, config={"a": [2**60, object()], "b": "\ud800"}),  # type: ignore[arg-type]
                layer_stack=LayerStack(layers=(Layer(linear=Recurrent()), Layer(repeat=2**31))),  # type: ignore[arg-type]
            ),
            inputs=(InputTensor(shape=(3, 2**63)), InputTensor(shape="3x3")),  # type: ignore[arg-type]
            precision="fp99",  # type: ignore[arg-type]
            loop=None,  # type: ignore[arg-type]
            micro_batch_size=1.5,  # type: ignore[arg-type]
        )
        assert set(violations(to_proto, PlanJobRequest(job=job))) == {
            "job.model",
            "job.model.catalog.name",
            "job.model.catalog.config.a[0]",
            "job.model.catalog.config.a[1]",
            "job.model.catalog.config.b",
            "job.model.layer_stack.layers[0].linear",
            "job.model.layer_stack.layers[1].repeat",
            "job.inputs[0].shape[1]",
            "job.inputs[1].shape",
            "job.precision",
            "job.loop",
            "job.micro_batch_size",
        }

    def test_maps_name_the_key(self) -> None:
        estimate = types.MemoryEstimate(library_versions={"torch": 2})  # type: ignore[dict-item]
        assert list(violations(to_proto, estimate)) == ["library_versions['torch']"]

    def test_what_is_nested_as_deep_as_allowed_can_be_parsed(self) -> None:
        request = PlanJobRequest(
            job=TrainingJob(model=Model(layer_stack=LayerStack(layers=(nested(42),))))
        )
        data = to_proto(request).SerializeToString()
        assert from_proto(planner_pb2.PlanJobRequest.FromString(data)) == request
        deeper = Model(layer_stack=LayerStack(layers=(nested(400),)))
        assert "levels deep" in next(iter(violations(to_proto, deeper).values()))

    def test_structs_nested_as_deep_as_allowed_can_be_parsed(self) -> None:
        def request(depth: int) -> PlanJobRequest:
            config: dict[str, Any] = {"a": 1}
            for _ in range(depth):
                config = {"a": config}
            model = Model(catalog=CatalogModel(name="x", config=config))
            return PlanJobRequest(job=TrainingJob(model=model))

        data = to_proto(request(24)).SerializeToString()
        assert from_proto(planner_pb2.PlanJobRequest.FromString(data)) == request(24)
        assert "levels deep" in next(iter(violations(to_proto, request(25)).values()))

    def test_other_classes_are_refused(self) -> None:
        with pytest.raises(TypeError, match="not a message"):
            to_proto("text")


class TestPlain:
    @pytest.mark.parametrize("cls", MESSAGES)
    @pytest.mark.parametrize("defaults", [True, False])
    @settings(thorough, max_examples=20)
    @given(data=st.data())
    def test_round_trip(self, cls: type[Any], defaults: bool, data: st.DataObject) -> None:
        value = data.draw(instances(cls))
        plain = to_dict(value, defaults=defaults)
        assert from_dict(cls, json.loads(json.dumps(plain))) == value

    def test_what_is_absent_is_left_out_and_zeros_are_kept(self) -> None:
        assert to_dict(Remedy(description="x")) == {
            "activation_checkpointing": False,
            "description": "x",
            "micro_batch_size": 0,
            "accumulation_steps": 0,
            "gpu_type": "",
        }
        assert "accumulation" not in to_dict(PlanJobResponse())
        assert to_dict(types.GpuTarget(gpu_type="a")) == {"gpu_type": "a"}

    def test_without_defaults(self) -> None:
        job = TrainingJob(
            model=Model(layer_stack=LayerStack(layers=(Layer(flatten=types.Flatten()),))),
            optimizer=Optimizer(type=OptimizerType.SGD, weight_decay=0.0),
        )
        assert to_dict(job, defaults=False) == {
            "model": {"layer_stack": {"layers": [{"flatten": {}}]}},
            "optimizer": {"type": "sgd", "weight_decay": 0.0},
        }

    def test_durations_are_seconds(self) -> None:
        request = ProfileMemoryRequest(time_limit=timedelta(seconds=90, microseconds=500_000))
        assert to_dict(request, defaults=False) == {"time_limit": "90.5s"}

    def test_enum_text_in_other_spellings(self) -> None:
        assert from_dict(TrainingJob, {"precision": "AMP_BF16"}).precision is Precision.AMP_BF16

    def test_every_mistake_is_reported(self) -> None:
        data = {
            "model": {"catalog": {"name": 3, "config": {1: 2}}, "layer_stack": {"layers": [7]}},
            "inputs": [{"shape": [True, 2**63, 1.5], "dtyp": "int64"}],
            "optimzer": {},
            "optimizer": {"type": "adm", "momentum": "high", "amsgrad": "yes"},
            "precision": 16,
            "micro_batch_size": {},
        }
        found = violations(from_dict, TrainingJob, data)
        assert set(found) == {
            "model",
            "model.catalog.name",
            "model.catalog.config",
            "model.layer_stack.layers[0]",
            "inputs[0].shape[0]",
            "inputs[0].shape[1]",
            "inputs[0].shape[2]",
            "inputs[0].dtyp",
            "optimzer",
            "optimizer.type",
            "optimizer.momentum",
            "optimizer.amsgrad",
            "precision",
            "micro_batch_size",
        }
        assert found["optimzer"] == "unknown field; did you mean optimizer?"
        assert "did you mean adam?" in found["optimizer.type"]
        assert "rmsprop" in found["optimizer.type"]
        assert found["model"] == "give only one of catalog, layer_stack"

    @pytest.mark.parametrize("data", [None, [], "x", 3])
    def test_no_mapping(self, data: object) -> None:
        assert "must be a mapping" in violations(from_dict, TrainingJob, data)[""]

    def test_endless_data(self) -> None:
        layer: dict[str, Any] = {}
        layer["residual"] = {"body": [layer]}
        found = violations(from_dict, LayerStack, {"layers": [layer]})
        assert "levels deep" in next(iter(found.values()))

    @pytest.mark.parametrize("text", ["60", 60, "1e9s", "-", "9" * 30 + "s", "9" * 5000 + "s"])
    def test_wrong_durations(self, text: object) -> None:
        assert "time_limit" in violations(from_dict, ProfileMemoryRequest, {"time_limit": text})

    @pytest.mark.parametrize("text", ["yesterday", 1767225600, "2026-01-31T08:15:00", "9" * 5000])
    def test_wrong_times(self, text: object) -> None:
        assert "create_time" in violations(from_dict, MeasuredProfile, {"create_time": text})


@pytest.mark.parametrize("number", [value.number for value in job_pb2.Precision.DESCRIPTOR.values])
def test_every_enum_number_has_a_member(number: int) -> None:
    job = from_proto(job_pb2.TrainingJob(precision=number))
    assert to_proto(job).precision == number
