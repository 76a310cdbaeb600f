"""Models without weights: fake tensors of the shapes and dtypes that a stage loads."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from rlhfctl.errors import EnvironmentFault
from rlhfctl.models import adapters
from rlhfctl.models.base import decoder_of, keep_backward
from rlhfctl.models.dropout import disable_dropout, silence_config
from rlhfctl.models.hub import hub_errors, model_source, runs_remote_code
from rlhfctl.models.linear import use_fast_cpu_layers
from rlhfctl.models.scorer import scorer_class

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch._subclasses.fake_tensor import FakeTensorMode

    from rlhfctl.plan.target import Target
    from rlhfctl.recipe.schema import LoraSection, ModelSection


@dataclass(frozen=True)
class Architecture:
    """A base model's config, and what its layers are like.

    Attributes:
        config: transformers config, without dropout.
        layers: Number of decoder layers.
        alike: Whether all layers have the same parameters and the same kind of attention, so that a
            step of a few layers tells that of many.
        parameters: Number of weights.
        trust_remote_code: Whether the model's class comes from its repository.
    """

    config: Any
    layers: int
    alike: bool
    parameters: int
    trust_remote_code: bool = False

    def with_layers(self, count: int) -> Any:
        """Return the config of a model with the first `count` layers."""
        config = deepcopy(self.config)
        text = config.get_text_config()
        for name, value in list(vars(text).items()):
            if isinstance(value, list) and len(value) == self.layers:
                setattr(text, name, value[:count])
        text.num_hidden_layers = count
        return config


def read_architecture(section: ModelSection, config: Any = None) -> Architecture:
    """Read a base model's config, from the package, a folder, or the Hub and its cache.

    Args:
        section: Model and attention.
        config: Config to use instead of reading one.

    Raises:
        EnvironmentFault: The config cannot be read, or the model has no decoder.
        UnsafeError: The model needs code of its own and the user has not allowed it.
    """
    from transformers import AutoConfig

    remote = runs_remote_code(section)
    if config is None:
        source = model_source(section)
        with hub_errors(source, "model.name_or_path"):
            config = AutoConfig.from_pretrained(
                source, revision=section.revision, trust_remote_code=remote
            )
    silence_config(config)
    text = config.get_text_config()
    if hasattr(text, "output_router_logits"):
        text.output_router_logits = False
    if not isinstance(getattr(text, "num_hidden_layers", None), int):
        raise EnvironmentFault(
            f"the config of {type(config).__name__} has no number of layers, so no plan can be made",
            "model.name_or_path",
            "Use a decoder-only causal language model.",
        )
    count = text.num_hidden_layers
    whole = Architecture(config, count, alike=False, parameters=0, trust_remote_code=remote)
    model = _meta_model(whole, section, count, torch.float32)
    shapes = [
        sorted((name, tuple(p.shape)) for name, p in layer.named_parameters())
        for layer in decoder_layers(model, count)
    ]
    kinds = [
        value for value in vars(text).values() if isinstance(value, list) and len(value) == count
    ]
    alike = all(shape == shapes[0] for shape in shapes) and all(
        entry == kind[0] for kind in kinds for entry in kind
    )
    parameters = sum(p.numel() for p in model.parameters())
    return Architecture(config, count, alike, parameters, remote)


def decoder_layers(model: Any, count: int) -> Sequence[torch.nn.Module]:
    """Return a model's decoder layers, in order.

    Raises:
        EnvironmentFault: No list of modules has as many entries.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return list(module)
    raise EnvironmentFault(
        f"{type(model).__name__} has no list of {count} layers, so no plan can be made",
        "model.name_or_path",
        "Use a decoder-only causal language model.",
    )


def _meta_model(
    architecture: Architecture,
    section: ModelSection,
    layers: int,
    dtype: torch.dtype,
    *,
    scorer: bool = False,
) -> Any:
    from transformers import AutoModelForCausalLM

    config = architecture.with_layers(layers)
    attention = section.attn_implementation
    # Kernels that may be missing here take the memory of torch's own, linear in the tokens.
    if attention is None or attention not in {"sdpa", "eager"}:
        attention = None if attention is None else "sdpa"
    arguments = {} if attention is None else {"attn_implementation": attention}
    with torch.device("meta"), hub_errors(section.name_or_path, "model.name_or_path"):
        if scorer:
            model_class = scorer_class(config, trust_remote_code=architecture.trust_remote_code)
            text = (
                config if isinstance(config, model_class.config_class) else config.get_text_config()
            )
            model = model_class._from_config(text, dtype=dtype, **arguments)
            getattr(model, model.head_name).float()
        else:
            model = AutoModelForCausalLM.from_config(
                config,
                dtype=dtype,
                trust_remote_code=architecture.trust_remote_code,
                **arguments,
            )
    disable_dropout(model)
    return model


@dataclass(frozen=True)
class Shadow:
    """A model of fake tensors.

    Attributes:
        model: The model, within peft's if it has adapters.
        decoder: Its decoder.
        layers: Decoder layers, in order.
    """

    model: Any
    decoder: Any
    layers: Sequence[torch.nn.Module]

    @property
    def base(self) -> Any:
        """The model below peft's."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def trained(self) -> list[torch.nn.Parameter]:
        """Return the parameters that have gradients."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def is_added(self, name: str) -> bool:
        """Return whether a parameter belongs to an adapter or to a head that comes with one."""
        return "lora_" in name or "modules_to_save" in name


def make_shadow(
    architecture: Architecture,
    section: ModelSection,
    target: Target,
    mode: FakeTensorMode,
    *,
    layers: int,
    lora: LoraSection | None,
    roles: Sequence[str] = ("default",),
    scorer: bool = False,
    dropout: bool = True,
) -> Shadow:
    """Return a model of fake tensors, as a stage loads it on the target.

    Args:
        architecture: Result of `read_architecture`.
        section: Precision, quantization and attention.
        target: Device to plan for.
        mode: Mode that the tensors belong to.
        layers: Number of decoder layers to make.
        lora: Adapters; None: all weights are trained, in fp32.
        roles: Names of the adapters; the first is active.
        scorer: Whether the head has one output instead of the vocabulary.
        dropout: Whether the adapters have the recipe's dropout.
    """
    with _disable_current_modes():
        return _make_shadow(
            *(architecture, section, target, mode, layers, lora, roles),
            scorer=scorer,
            dropout=dropout,
        )


def _make_shadow(
    architecture: Architecture,
    section: ModelSection,
    target: Target,
    mode: FakeTensorMode,
    layers: int,
    lora: LoraSection | None,
    roles: Sequence[str],
    *,
    scorer: bool,
    dropout: bool,
) -> Shadow:
    from peft import get_peft_model

    dtype = torch.float32 if lora is None else target.dtype(section)
    model = _meta_model(architecture, section, layers, dtype, scorer=scorer)
    quantization = target.quantization(section)
    if quantization != "none" and lora is not None:
        from rlhfctl.plan.packed import pack

        pack(model, quantization, dtype)
    base, decoder = model, decoder_of(model)
    if lora is not None:
        head = model.head_name if scorer else None
        with torch.device("meta"):
            for number, role in enumerate(roles):
                config = adapters.new_config(lora, "SEQ_CLS" if scorer else "CAUSAL_LM", head)
                if not dropout:
                    config.lora_dropout = 0.0
                if number == 0:
                    model = get_peft_model(model, config, adapter_name=role)
                else:
                    model.add_adapter(role, config)
    _make_fake(model, mode)
    keep_backward(model)
    if target.kind == "cpu":
        use_fast_cpu_layers(model)
    return Shadow(model, decoder, decoder_layers(base, layers))


def _make_fake(model: torch.nn.Module, mode: FakeTensorMode) -> None:
    """Replace every parameter and buffer on the meta device by a fake one on the CPU."""
    replaced: dict[int, torch.Tensor] = {}
    for tensors, name, tensor in _tensors(model):
        key = id(tensor)
        if key not in replaced:
            with mode:
                fake = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            is_weight = isinstance(tensor, torch.nn.Parameter)
            if is_weight and tensor.requires_grad and fake.dtype in (torch.bfloat16, torch.float16):
                # Trained weights are fp32 in every stage (`restore_float32`).
                fake = fake.float()
            replaced[key] = (
                torch.nn.Parameter(fake, requires_grad=tensor.requires_grad) if is_weight else fake
            )
        tensors[name] = replaced[key]


def _tensors(
    model: torch.nn.Module,
) -> Iterator[tuple[dict[str, Any], str, torch.Tensor]]:
    for module in model.modules():
        both: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for tensors in both:
            for name, tensor in list(tensors.items()):
                if tensor is not None:
                    yield tensors, name, tensor
