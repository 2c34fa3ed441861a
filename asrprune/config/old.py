"""Old key names in config files and ``--set``: they are converted to the current names before the config is checked.

Earlier versions kept the numbers of all layer types and schedules in one section, and wrote all of them to config.yaml, even
those without effect. A number that belongs to another type is dropped if it has its old default, or if an earlier version wrote
the file. Otherwise it is moved to the current section, whose check refuses it.
"""

from typing import Any

from asrprune.config.names import sections
from asrprune.config.schema import Config

RENAMED = {
    "model.conv_channels": "model.subsampling.channels",
    "model.conv_kernel": "model.layer.kernel",
    "model.conv_norm": "model.layer.norm",
    "model.position_scale": "model.layer.position_scale",
}
_LAYER_DEFAULTS = {"conv_kernel": 31, "conv_norm": "batch", "position_scale": 1.0}
NEWER = {"seed", "decode", "scoring"}  # sections that the first versions did not have


def is_written(values: dict[str, Any]) -> bool:
    """Return whether an earlier version wrote this config: it has all sections, and the layer is not a section.

    A person may have written all sections, too, but hardly each of their numbers.
    """
    model = values.get("model")
    if not isinstance(model, dict) or isinstance(model.get("layer"), dict) or not values.keys() >= _SECTIONS:
        return False
    return all(isinstance(values[name], dict) and values[name].keys() >= keys for name, keys in _NUMBERS.items())


_SECTIONS = Config.model_fields.keys() - NEWER
_NUMBERS = {  # of the sections that have been the same in all versions
    "tokenizer": {"type", "vocab_size"},
    "batch": {"max_frames", "accumulate"},
    "bench": {"utterances", "batch", "threads", "repeats"},
}


def modernised(values: dict[str, Any]) -> dict[str, Any]:
    """Convert old key names to the current ones; leave current ones unchanged."""
    written = is_written(values)
    values = {**values}
    if isinstance(values.get("model"), dict):
        values["model"] = _with_layer(_with_front_end(values["model"]), written)
    if isinstance(values.get("train"), dict) and isinstance(values["train"].get("schedule"), dict):
        values["train"] = {**values["train"], "schedule": _schedule(values["train"]["schedule"], written)}
    return values


def _with_front_end(model: dict[str, Any]) -> dict[str, Any]:
    if "conv_channels" not in model or "subsampling" in model:
        return model
    others = {key: value for key, value in model.items() if key != "conv_channels"}
    return {**others, "subsampling": {"channels": model["conv_channels"]}}


def _with_layer(model: dict[str, Any], written: bool) -> dict[str, Any]:
    flat = {key: value for key, value in model.items() if key in _LAYER_DEFAULTS}
    kind = model.get("layer", "transformer")
    if not flat or not isinstance(kind, str):
        return model
    layer = {"type": kind}
    for key, value in flat.items():
        name = RENAMED[f"model.{key}"].rpartition(".")[2]
        if _has("model.layer", "type", kind, name) or not (written or value == _LAYER_DEFAULTS[key]):
            layer[name] = value
    return {**{key: value for key, value in model.items() if key not in flat}, "layer": layer}


def _schedule(schedule: dict[str, Any], written: bool) -> dict[str, Any]:
    kind = schedule.get("name", "noam")
    if "final" not in schedule or _has("train.schedule", "name", kind, "final") or not (written or schedule["final"] == 0.0):
        return schedule
    return {key: value for key, value in schedule.items() if key != "final"}


def _has(section: str, tag: str, kind: str, key: str) -> bool:
    return any(key in alternative.model_fields for alternative in sections(section) if alternative.default(tag) == kind)
