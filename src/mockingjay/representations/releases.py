"""What the settings of s3prl's releases and of BERT-like folders mean here: the shape of a context, and its frames."""

from collections.abc import Mapping
from typing import Any

from mockingjay.core import config
from mockingjay.core.errors import CheckpointError
from mockingjay.encoders.contexts import SharedTransformer, Transformer
from mockingjay.encoders.frontends import Fbank, FrontendConfig, Linear, LogMel, Precomputed, Stacked, build_frontend
from mockingjay.encoders.frontends.log_mel import MOCKINGJAY_160

Shape = Transformer.Config | SharedTransformer.Config

# What has one value here; a model with another would compute something else.
_KEPT: Mapping[str, Any] = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "pre_layer_norm": False}
_NAMES = {
    "layers": "num_hidden_layers",
    "dim": "hidden_size",
    "feedforward": "intermediate_size",
    "heads": "num_attention_heads",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
}
_WIDTHS: Mapping[int, FrontendConfig] = {160: MOCKINGJAY_160, 40: Precomputed.Config()}  # of the first releases


def context_of(sizes: Mapping[str, Any], where: str) -> Shape:
    """Turn a transformer's settings into ours.

    Raises:
        CheckpointError: A setting has no counterpart here.
        ConfigError: A value is wrong.
    """
    for name, kept in _KEPT.items():
        found = sizes.get(name, kept)
        # YAML reads 1e-12, without a point, as text.
        if found != kept and not (isinstance(kept, float) and found == f"{kept:g}"):
            raise CheckpointError(f"{where}: {name} is {found!r:.40}, expected {kept!r}; choose a model without it")
    values = {ours: sizes[theirs] for ours, theirs in _NAMES.items() if theirs in sizes}
    return config.validate(SharedTransformer.Config if sizes.get("share_layer") else Transformer.Config, values, where)


def frontend_of(
    given: FrontendConfig | None, features: Mapping[str, Any], sizes: Mapping[str, Any], width: int, where: str
) -> FrontendConfig:
    """Find what makes frames of this width: as asked for, as the settings say, or as the first releases did.

    Raises:
        CheckpointError: Nothing does.
        ConfigError: A value is wrong.
    """
    factor = sizes.get("downsample_rate", 1)
    factor = factor if isinstance(factor, int) and 1 <= factor <= 100 else 1
    chosen = given or _described(features, where) or _WIDTHS.get(width // factor)
    if chosen is not None and factor > 1 and not isinstance(chosen, Stacked.Config):
        chosen = config.validate(Stacked.Config, {"factor": factor, "inner": chosen.model_dump()}, where)
    found = build_frontend(chosen).dim if chosen is not None else "nothing known"
    if chosen is None or found != width:
        raise CheckpointError(
            f"{where}: reads frames of {width} values, but its settings describe {found}, expected the same; "
            "name what made its frames by --frontend"
        )
    return chosen


def _described(features: Mapping[str, Any], where: str) -> FrontendConfig | None:
    """Turn settings of features into ours; None where they are others than these."""
    where = f"{where}: features"
    kaldi, plain = table(features, "kaldi"), table(features, "input")
    if kaldi.get("feat_type") == "fbank":
        bank, deltas = table(kaldi, "fbank"), table(features, "delta")
        values = {
            "mels": bank.get("num_mel_bins", 80),
            "window": _samples(bank, "frame_length", 25),
            "hop": _samples(bank, "frame_shift", 10),
            "deltas": deltas.get("order", 0),
            "delta_width": deltas.get("win_length", 5),
            "normalise": "utterance" if table(features, "cmvn").get("use_cmvn", True) else "none",
        }
        return config.validate(Fbank.Config, values, where)
    if plain.get("feat_type") not in ("mel", "linear") or not plain.get("log", True) or plain.get("delta", 0):
        return None
    bins = features.get("n_freq", 201)
    shared = {
        "window": _samples(features, "win_ms", 25),
        "hop": _samples(features, "hop_ms", 10),
        "fft": 2 * (bins - 1) if isinstance(bins, int) else bins,
        "floor": 1e-10,
        "level": features.get("target_level", -25.0),
        "normalise": "utterance" if plain.get("cmvn", True) else "none",
    }
    if plain["feat_type"] == "linear":
        return config.validate(Linear.Config, {**shared, "scale": "log", "preemphasis": 0.0}, where)
    mels = {"mels": features.get("n_mels", 80), "scale": "htk", "deltas": 0}
    return config.validate(LogMel.Config, {**shared, **mels}, where)


def table(values: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Find a table inside a table; an empty one where there is none."""
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _samples(values: Mapping[str, Any], name: str, default: int) -> Any:
    """Read a length in milliseconds as samples; what is no such length is left for validation to refuse."""
    found = values.get(name, default)
    return round(16 * found) if isinstance(found, int | float) and 0 < found < 1e4 else found
