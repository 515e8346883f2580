"""A generation as the tensors of the language models that Triton serves. Which tensors a model
takes says what it is:

- vLLM's back-end: `sampling_parameters`, one JSON text.
- TensorRT-LLM's LLM API (its model `tensorrt_llm` of the folder ``llmapi``): `sampling_param_...`,
  a tensor each.
- TensorRT-LLM's `ensemble` and `tensorrt_llm_bls`: a tensor each under plain names.
"""

from collections.abc import Collection, Mapping
from typing import Any

import orjson

from services.infer.ports import GenerateRequest, Sampling
from services.runtime.errors import InvalidArgument

_DEFAULT_MAX_TOKENS = 512
"""TensorRT-LLM's models have no limit of their own and want one."""
_LLM_API = "sampling_param_"
_NAMES: Mapping[str, tuple[str, ...]] = {
    "max_tokens": ("max_tokens",),
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "top_k": ("top_k",),
    "seed": ("seed", "random_seed"),
    "presence_penalty": ("presence_penalty",),
    "frequency_penalty": ("frequency_penalty",),
}
"""A field of `Sampling` -> its tensor's names, before and after a renaming."""
_PENALTIES = ("presence_penalty", "frequency_penalty")


def values_of(request: GenerateRequest, text: str, inputs: Collection[str]) -> dict[str, Any]:
    """The values of a generation's tensors, of those that the model takes.

    Args:
        text: what the model continues.
        inputs: the tensors that the model takes.

    Raises:
        InvalidArgument: PARAMETER_UNSUPPORTED, where it takes none for what is asked.
    """
    if "sampling_parameters" in inputs:
        values = _vllm(request.sampling)
    elif is_llm_api(inputs):
        values = _llm_api(request.sampling, inputs)
    else:
        values = _plain(request.sampling, inputs)
    values["text_input"] = text
    return {name: value for name, value in values.items() if name in inputs and value is not None}


def is_llm_api(inputs: Collection[str]) -> bool:
    """Whether it is a model of TensorRT-LLM's LLM API, which sends all of its text so far with
    each answer."""
    return any(name.startswith(_LLM_API) for name in inputs)


def _vllm(sampling: Sampling) -> dict[str, Any]:
    parameters = {
        "max_tokens": sampling.max_tokens or _DEFAULT_MAX_TOKENS,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": sampling.seed,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "stop": list(sampling.stop) or None,
    }
    known = {name: value for name, value in parameters.items() if value is not None}
    return {
        "stream": True,
        "exclude_input_in_output": True,
        "return_finish_reason": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
        "sampling_parameters": orjson.dumps(known).decode(),
    }


def _llm_api(sampling: Sampling, inputs: Collection[str]) -> dict[str, Any]:
    # Its stop texts are left to us, as of all that come in pieces: `stop` there ends a request.
    return {
        "streaming": True,
        "return_finish_reason": True,
        f"{_LLM_API}exclude_input_from_output": True,
        **_sampled(sampling, inputs, _LLM_API),
    }


def _plain(sampling: Sampling, inputs: Collection[str]) -> dict[str, Any]:
    return {
        "stream": True,
        "exclude_input_in_output": True,
        "stop_words": list(sampling.stop) or None,
        **_sampled(sampling, inputs, ""),
    }


def _sampled(sampling: Sampling, inputs: Collection[str], prefix: str) -> dict[str, Any]:
    wished = {field: getattr(sampling, field) for field in _NAMES}
    for penalty in _PENALTIES:
        wished[penalty] = wished[penalty] or None
    if sampling.temperature and sampling.top_p is None and sampling.top_k is None:
        # TensorRT-LLM takes the likeliest token, whatever the temperature, where neither is given.
        wished["top_p"] = 1.0
    values: dict[str, Any] = {f"{prefix}max_tokens": _DEFAULT_MAX_TOKENS}
    for field, value in wished.items():
        if value is None:
            continue
        names = [f"{prefix}{name}" for name in _NAMES[field]]
        if not any(name in inputs for name in names) and getattr(sampling, field) is not None:
            raise InvalidArgument(
                "PARAMETER_UNSUPPORTED",
                f"The model on Triton takes no {field}.",
                field=field,
            )
        values |= dict.fromkeys(names, value)
    return values
