"""Other people's checkpoints give here what they give there."""

import json

import pytest
import safetensors.torch
import torch
from command import refuses, works
from releases import DIM, FBANK, FEEDFORWARD, HEADS, MEL, Transformer, first_states, sizes, states

from mockingjay import open_representation
from mockingjay.core.types import Frames, Waves
from mockingjay.encoders.contexts import SharedTransformer
from mockingjay.encoders.encoder import Encoder
from mockingjay.encoders.frontends.fbank import FBANK_240
from mockingjay.encoders.frontends.linear import LINEAR_201
from mockingjay.encoders.frontends.log_mel import MOCKINGJAY_160, TERA_80
from mockingjay.encoders.frontends.precomputed import Precomputed
from mockingjay.encoders.frontends.stacked import Stacked
from mockingjay.representations.foreign import import_foreign

LINEAR = MEL | {"input": {"feat_type": "linear", "log": True}}
RELEASES = {
    "mockingjay": (240, 3, False, lambda model: states(model, FBANK), FBANK_240),
    "tera": (80, 3, False, lambda model: states(model, MEL), TERA_80),
    "audio-albert": (80, 4, True, lambda model: states(model, MEL, share_layer=True), TERA_80),
    "linear": (201, 2, False, lambda model: states(model, LINEAR), LINEAR_201),
    "mockingjay-2019": (160, 2, False, first_states, MOCKINGJAY_160),
    "mockingjay-2019-large": (
        480, 2, False, lambda model: first_states(model, downsample_rate=3), Stacked.Config(inner=MOCKINGJAY_160),
    ),
    "tera-fmllr": (40, 2, False, first_states, Precomputed.Config()),
}  # fmt: skip


def same(encoder, reference, width):
    """Compare all layers of a batch of uneven lengths with those of the reference."""
    lengths = torch.tensor([31, 20, 7])
    frames = torch.randn(3, 31, width)
    with torch.no_grad():
        expected = reference(frames, lengths)
        found = encoder.context(Frames(frames, lengths))
    assert encoder.depth == len(expected)
    for ours, theirs in zip(found.layers, expected, strict=True):
        torch.testing.assert_close(ours[found.valid], theirs[found.valid], atol=1e-5, rtol=0)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", RELEASES)
def test_releases_give_the_same_hidden_states(name, zipped, tmp_path):
    width, layers, shared, made, frontend = RELEASES[name]
    reference = Transformer(width, layers, shared).eval()
    file, said = tmp_path / "states-1000.ckpt", []
    torch.save(made(reference), file, _use_new_zipfile_serialization=zipped)
    import_foreign(file, tmp_path / "encoder", say=said.append)
    encoder = Encoder.load(tmp_path / "encoder")
    assert encoder.config.frontend == frontend
    assert isinstance(encoder.config.context, SharedTransformer.Config) == shared
    same(encoder, reference, width)
    below = "context.block" if shared else "context.blocks.0"
    three = " + ".join(f"encoder.layer.0.attention.self.{part}.weight" for part in ("query", "key", "value"))
    assert f"{three} -> {below}.attention.query_key_value.weight ({3 * DIM}, {DIM})" in said
    assert f"encoder.layer.0.output.LayerNorm.bias -> {below}.feedforward_norm.bias ({DIM},)" in said
    assert said[-1].startswith("left behind: SpecHead, ") and len(said) == 1 + len(encoder.state_dict())


def test_the_command_imports_and_the_folder_opens(tmp_path):
    file, out = tmp_path / "states.ckpt", tmp_path / "encoder"
    torch.save(states(Transformer(80, 2), MEL), file)
    assert works("import", file, "--out", out).splitlines()[-1] == f"encoder: {out}"
    hidden = open_representation(str(out))(Waves.pad([torch.randn(16_000) * 0.1]))
    assert hidden.last.shape == (1, 101, DIM) and hidden.last.isfinite().all()
    assert works("import", file, "--out", out, "--quiet") == ""


def folder_of(model, path, prefix="", more=None, **settings):
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"model_type": "bert", **sizes(2, layer_norm_eps=1e-12), **settings}))
    tensors = {prefix + name: value.clone() for name, value in model.state_dict().items()} | (more or {})
    safetensors.torch.save_file(tensors, path / "model.safetensors")
    return path


def test_a_folder_of_huggingface_layout(tmp_path):
    reference = Transformer(80, 2).eval()
    head = {"cls.predictions.bias": torch.zeros(3), "bert.pooler.dense.bias": torch.zeros(3)}
    folder, out = folder_of(reference, tmp_path / "bert", "bert.", head), tmp_path / "encoder"
    said = works("import", folder, "--out", out, "--frontend", "mel")
    assert "left behind: bert.pooler.dense.bias, cls.predictions.bias" in said
    same(Encoder.load(out), reference, 80)
    works("import", folder, "--out", out, "--frontend", "precomputed:80")
    refuses(4, "reads frames of 80 values, but its settings describe nothing known", "import", folder, "--out", out)
    refuses(4, "describe 160", "import", folder, "--out", out, "--frontend", "mel160")
    refuses(2, "--frontend mell: unknown", "import", folder, "--out", out, "--frontend", "mell")
    words = {"bert.embeddings.word_embeddings.weight": torch.zeros(9, DIM)}
    folder_of(reference, folder, "bert.", words)
    refuses(4, "holds 'embeddings.word_embeddings.weight' besides", "import", folder, "--out", out)
    folder_of(
        reference,
        folder,
        "a.",
        {f"b.{name}": value.clone() for name, value in reference.state_dict().items()},
    )
    refuses(4, "two encoders, expected one", "import", folder, "--out", out)
    (folder / "config.json").unlink()
    refuses(4, "config.json: No such file", "import", folder, "--out", out)


def changed(reference=None, weights=None, settings=None, audio=MEL, shared=False):
    made = states(reference or Transformer(80, 2, shared), audio, share_layer=shared)
    made["Transformer"] = {**made["Transformer"], **(weights or {})}
    made["Transformer"] = {name: value for name, value in made["Transformer"].items() if value is not None}
    made["Upstream_Config"]["transformer"] |= settings or {}
    return made


QUERY, PROJECT = "encoder.layer.0.attention.self.query.weight", "input_representations.spec_transform.weight"
FIRST, SECOND = (f"encoder.layer.{layer}.intermediate.dense.weight" for layer in (0, 1))


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (changed(settings={"hidden_act": "relu"}), "hidden_act is 'relu', expected 'gelu'"),
        (changed(settings={"layer_norm_eps": 1e-5}), "layer_norm_eps is 1e-05, expected 1e-12"),
        (changed(settings={"pre_layer_norm": True}), "pre_layer_norm is True, expected False"),
        (changed(settings={"hidden_size": "12"}), "dim: input should be a valid integer"),
        (changed(settings={"hidden_size": 24}), r"has shape \(12, 80\), expected \(24, 80\)"),
        (changed(settings={"hidden_size": 49_152}), r"has shape \(12, 80\), expected"),
        (changed(settings={"hidden_size": 10**12}), "dim: input should be less than or equal to 65536"),
        (changed(settings={"num_hidden_layers": 3}), r"lacks 'encoder.layer.2.attention.output.LayerNorm.bias' \(16 "),
        (changed(settings={"num_hidden_layers": 256}), "lacks 'encoder.layer."),
        (changed(settings={"num_hidden_layers": 10**12}), "layers: input should be less than or equal to 256"),
        (changed(settings={"num_hidden_layers": 1}), "holds 'encoder.layer.1.attention.output.LayerNorm.bias' besides"),
        (changed(settings={"intermediate_size": FEEDFORWARD + 1}), "expected"),
        (changed(settings={"num_attention_heads": HEADS + 2}), "must be even and a multiple of heads"),
        (changed(weights={QUERY: None}), f"lacks '{QUERY}'"),
        (changed(weights={"encoder.strange": torch.zeros(1)}), "holds 'encoder.strange' besides"),
        (changed(weights={QUERY: torch.zeros(3, 3)}), "has shape"),
        (changed(weights={FIRST: torch.full((FEEDFORWARD, DIM), torch.nan)}), "blocks.0.widen.weight' is not finite"),
        (changed(weights={FIRST: torch.zeros(1).expand(1 << 40, 1 << 20)}), "is no dense tensor"),
        (changed(weights={FIRST: torch.zeros(9, 9).to_sparse()}), "is no dense tensor"),
        (changed(weights={FIRST: torch.zeros(9, 9, dtype=torch.int64)}), "is no dense tensor"),
        (changed(weights={FIRST: torch.zeros(9, 9, device="meta")}), "is no dense tensor"),
        (changed(weights={FIRST: "weights"}), "is no dense tensor"),
        (changed(weights={3: torch.zeros(1)}), "3 is no dense tensor"),
        (changed(weights={PROJECT: torch.tensor(1.0)}), "reads frames of 0 values"),
        (changed(weights={SECOND: torch.zeros(FEEDFORWARD, DIM)}, shared=True), f"{SECOND}' is not as in layer 0"),
        (changed(audio={"input": {"feat_type": "mfcc"}}), "frames of 80 values, but its settings describe noth"),
        (changed(audio=MEL | {"n_mels": "80"}), "features: mels: input should be a valid integer"),
        (changed(audio=MEL | {"n_freq": None}), "features: fft"),
        (changed(audio=MEL | {"win_ms": -1}), "features: window"),
        (changed(audio=FBANK), "settings describe 240"),
        ({"Transformer": 3}, "no table 'Transformer' of weights"),
        ([1, 2], "no table 'Transformer' of weights"),
        ({"Transformer": {}}, "lacks 'input_representations.LayerNorm.bias'"),
    ],
)  # fmt: skip
def test_what_cannot_be_kept_is_refused(made, sentence, tmp_path):
    torch.save(made, tmp_path / "states.ckpt")
    refuses(2 if ": input should" in sentence or "features: " in sentence or "multiple" in sentence else 4, sentence,
            "import", tmp_path / "states.ckpt", "--out", tmp_path / "out")  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_no_file_at_all(tmp_path):
    refuses(4, "no such file, expected a checkpoint", "import", tmp_path / "none.ckpt", "--out", tmp_path / "out")
    refuses(4, "config.json: No such file", "import", tmp_path, "--out", tmp_path / "out")
