"""Record what ESPnet's encoders compute with each of our layer types, as the oracle of test/model/test_espnet_parity.py.

ESPnet is no dependency of this project, not even of its tests: they read the recorded file. To record it again, install
ESPnet in a virtual environment of its own and run this script with that environment's Python, from the repository root::

    python3.11 -m venv ../espnet-venv
    ../espnet-venv/bin/pip install torch==2.14.1 torchaudio==2.11.0 numpy safetensors
    ../espnet-venv/bin/pip install --no-deps espnet==202511
    ../espnet-venv/bin/pip install typeguard==2.13.3 humanfriendly pyyaml packaging sentencepiece kaldiio editdistance \
        soundfile configargparse torch_complex h5py librosa scipy ctc-segmentation
    PYTHONPATH=. ../espnet-venv/bin/python tools/record_espnet.py [transformer] [conformer] [ebranchformer]

Each file holds float16 tensors (``weights.*``, ``ctc.*``, ``conditioning.*``, ``input.<case>``; they were rounded to
float16 BEFORE the run, so nothing is lost) and float32 outputs ``<variant>.<case>.<final|tap2|tap3|lens>``, where the
variant is ``plain`` or ``conditioned`` (self-conditioned CTC), with ``_keep`` when only the layers KEEP ran.
"""

import json
import platform
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import espnet  # type: ignore[import-not-found]
import torch
from espnet2.asr.ctc import CTC  # type: ignore[import-not-found]
from espnet2.asr.encoder.conformer_encoder import ConformerEncoder  # type: ignore[import-not-found]
from espnet2.asr.encoder.e_branchformer_encoder import EBranchformerEncoder  # type: ignore[import-not-found]
from espnet2.asr.encoder.transformer_encoder import TransformerEncoder  # type: ignore[import-not-found]
from safetensors.torch import save_file
from torch import Tensor, nn

from asrprune.runtime.files import atomic_path

OUTPUTS = Path(__file__).resolve().parents[1] / "test/fixtures/espnet"
SEED = 20210616
LAST_OF_BRANCHES = ("linear_out", "w_2", "channel_proj2", "merge_proj")
VOCAB_SIZE = 20
TAPS = [2, 3]
KEEP = [1, 3, 4]
ENCODER: dict[str, Any] = {
    "input_size": 80,
    "output_size": 32,
    "attention_heads": 4,
    "linear_units": 64,
    "num_blocks": 5,
    "dropout_rate": 0.0,
    "positional_dropout_rate": 0.0,
    "attention_dropout_rate": 0.0,
    "input_layer": "conv2d",
}
TRANSFORMER: dict[str, Any] = {"normalize_before": True}
CONFORMER: dict[str, Any] = {
    "normalize_before": True,
    "macaron_style": True,
    "rel_pos_type": "latest",
    "pos_enc_layer_type": "rel_pos",
    "selfattention_layer_type": "rel_selfattn",
    "activation_type": "swish",
    "use_cnn_module": True,
    "cnn_module_kernel": 15,
}
EBRANCHFORMER: dict[str, Any] = {
    "attention_layer_type": "rel_selfattn",
    "pos_enc_layer_type": "rel_pos",
    "rel_pos_type": "latest",
    "cgmlp_linear_units": 96,
    "cgmlp_conv_kernel": 15,
    "use_linear_after_conv": False,
    "gate_activation": "identity",
    "use_ffn": True,
    "macaron_ffn": True,
    "merge_conv_kernel": 15,
}
ENCODERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "transformer": (TransformerEncoder, ENCODER | TRANSFORMER),
    "conformer": (ConformerEncoder, ENCODER | CONFORMER),
    "ebranchformer": (EBranchformerEncoder, ENCODER | EBRANCHFORMER),
}
# (utterances, frames). None is padded: in a padded batch ESPnet takes T' from a sliced mask, which gives a shorter utterance
# one or two frames more (ceil(T / 4)) than the convolutions give it on its own, and these frames of padding then take part
# in attention. Alone, or among equals, an utterance has none, and this is the result that padding must not change.
CASES = {"t67": (1, 67), "t120": (1, 120), "t203": (1, 203), "batch": (2, 95)}
# Positions of a long utterance: LibriSpeech's longest, 34.955 s, has 873 encoder frames; every 31st is kept.
POSITION_DIM, NUM_POSITIONS, POSITION_STEP = 256, 873, 31


def main() -> None:
    """Record the encoders that are named on the command line, or all of them."""
    torch.set_num_threads(1)
    for name in sys.argv[1:] or ENCODERS:
        record(name, *ENCODERS[name])


def record(name: str, kind: Any, options: dict[str, Any]) -> None:
    """Build an encoder, run every variant on every case, write the file."""
    torch.manual_seed(SEED)
    encoder, ctc = kind(**options).eval(), CTC(VOCAB_SIZE, ENCODER["output_size"]).eval()
    conditioning = nn.Linear(VOCAB_SIZE, ENCODER["output_size"])
    inputs = {name: rounded(torch.randn(*shape, ENCODER["input_size"])) for name, shape in CASES.items()}
    tensors = {f"input.{name}": value.half() for name, value in inputs.items()}
    for prefix, module in (("weights", encoder), ("ctc", ctc), ("conditioning", conditioning)):
        randomise(module)
        tensors |= {f"{prefix}.{key}": value.half() for key, value in module.state_dict().items() if value.is_floating_point()}
    if name == "transformer":
        tensors["positions"] = positions()
    encoder.conditioning_layer = conditioning  # as ESPnet's own model class does it, after the state_dict was taken
    with torch.inference_mode():
        tensors |= run_all(encoder, ctc, inputs)
    save(OUTPUTS / f"{name}.safetensors", tensors, options)


def run_all(encoder: Any, ctc: CTC, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """All variants: the whole encoder, then the same one with its list of layers cut down to KEEP."""
    outputs = run_variants(encoder, ctc, inputs, "", {tap: tap for tap in TAPS})
    encoder.encoders = nn.ModuleList(encoder.encoders[layer - 1] for layer in KEEP)
    # ESPnet numbers taps by place in the list: a tap moves with its layer, or leaves with it.
    places = {KEEP.index(tap) + 1: tap for tap in TAPS if tap in KEEP}
    return outputs | run_variants(encoder, ctc, inputs, "_keep", places)


def run_variants(encoder: Any, ctc: CTC, inputs: dict[str, Tensor], suffix: str, places: dict[int, int]) -> dict[str, Tensor]:
    """Outputs with and without self-conditioning; ``places``: place in the list of layers -> name of the tap."""
    encoder.interctc_layer_idx = list(places)
    # Its E-Branchformer alone hands taps on, and to CTC, without the final norm, which the CTC layer is used to.
    norm = encoder.after_norm if isinstance(encoder, EBranchformerEncoder) else nn.Identity()
    head = SimpleNamespace(softmax=lambda stream: ctc.softmax(norm(stream)))
    outputs: dict[str, Tensor] = {}
    for variant in ("plain", "conditioned"):
        encoder.interctc_use_conditioning = variant == "conditioned"
        for case, x in inputs.items():
            frames = torch.full((x.shape[0],), x.shape[1])
            (final, taps), lens, _ = encoder(x, frames, ctc=head)
            assert lens.tolist() == [final.shape[1]] * len(final), "an unpadded utterance has padding"
            name = f"{variant}{suffix}.{case}"
            outputs |= {f"{name}.final": final, f"{name}.lens": lens}
            outputs |= {f"{name}.tap{places[place]}": norm(tap) for place, tap in taps}
    return outputs


def randomise(module: nn.Module) -> None:
    """Random weights: no bias is 0, no norm is the identity, and the residual stream stays near 1.

    A small stream makes LayerNorm's epsilon visible; random queries and keys make attention far from uniform.
    """
    for name, parameter in module.named_parameters():
        gain = 0.1 if "embed.out" in name else 0.2 if any(last in name for last in LAST_OF_BRANCHES) else 1.0
        noise = torch.randn_like(parameter)
        if parameter.dim() > 1:
            value = gain * noise / parameter[0].numel() ** 0.5
        else:
            value = 0.3 * gain * noise + (1.0 if "norm" in name and "weight" in name else 0.0)
        parameter.data = rounded(value)
    for name, buffer in module.named_buffers():  # of BatchNorm
        if name.endswith("running_mean"):
            buffer.copy_(rounded(0.3 * torch.randn_like(buffer)))
        elif name.endswith("running_var"):
            buffer.copy_(rounded(0.5 + torch.rand_like(buffer)))


def rounded(x: Tensor) -> Tensor:
    """float32 values that float16 can hold, which halves the file."""
    return x.half().float()


def positions() -> Tensor:
    """Rows of ESPnet's positional encoding, as it adds them to a stream of zeros: (29, 256)."""
    embed = TransformerEncoder(**ENCODER | TRANSFORMER | {"output_size": POSITION_DIM, "num_blocks": 1}).eval().embed
    added = embed.out[-1](torch.zeros(1, NUM_POSITIONS, POSITION_DIM))
    return added[0, ::POSITION_STEP].clone()


def save(path: Path, tensors: dict[str, Tensor], options: dict[str, Any]) -> None:
    """Write a file, with all that is needed to know where it comes from in its metadata."""
    facts = {
        "espnet": espnet.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "seed": SEED,
        "encoder": options,
        "taps": TAPS,
        "keep": KEEP,
        "num_positions": NUM_POSITIONS,
        "position_step": POSITION_STEP,
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, {"recorded": json.dumps(facts, sort_keys=True)})
    print(f"{path}: {len(tensors)} tensors, {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
