import math
from dataclasses import replace

import pytest
import torch
from command import works
from speech_like import batch_of, corpus

from mockingjay import audio
from mockingjay.audio.write import write
from mockingjay.core.draw import Draw
from mockingjay.core.errors import ConfigError
from mockingjay.core.types import Batch, Grid, Waves
from mockingjay.encoders.encoder import Encoder
from mockingjay.moves.decode import Segment
from mockingjay.moves.decode.mu_law import LEVELS, Levels, before, compress, expand
from mockingjay.moves.decode.wavenet import WaveNet
from mockingjay.moves.jitter import jitter
from mockingjay.moves.speakers import Speakers
from mockingjay.objectives import build_objective
from mockingjay.settings import settings
from mockingjay.train.loop import Run

DECODERS = {
    "wavenet": [],
    "recurrent": ["frames=8", "samples=24", "embedding=12"],
    "mel": ["channels=24"],
}
BOTTLENECKS = ("ae", "vae", "vq-vae")


def small(*changes, decoder="wavenet", bottleneck="vq-vae", prepared=True):
    torch.manual_seed(0)
    chosen = [f"objective.encoder.context.bottleneck.kind={bottleneck}"] * (bottleneck != "vq-vae")
    if decoder != "wavenet":
        chosen += [f"objective.decoder.{each}" for each in (f"kind={decoder}", *DECODERS[decoder])]
    objective = build_objective(settings("autoencoder", "nano", [*chosen, *changes]).objective)
    if prepared:
        objective.prepare([spoken()])
    return objective


def spoken(lengths=(8000, 6000, 7000), speakers=("ann", "bob", "ann")):
    batch = batch_of(lengths)
    named = tuple(replace(each, speaker=speaker) for each, speaker in zip(batch.utterances, speakers))
    return Batch(batch.waves, named)


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


# ---- the method


def test_sizes_are_ae_wavenet_s():
    objective = build_objective(settings("autoencoder").objective)
    convolutions = 39 * 768 * 3 + 768 * 768 * (3 + 4 + 3 + 3 + 1 + 1 + 1 + 1) + 9 * 768
    assert size(objective.encoder) == convolutions + 64 * 769 + 512 * 64
    assert (objective.encoder.dim, objective.encoder.depth, objective.encoder.grid) == (64, 2, Grid(320, 80.0))
    decoder = objective.decoder
    assert [layer.dilation for layer in decoder.layers] == [2**power for power in range(10)] * 2
    layer = 368 * 1024 + 128 * 512 + 512 + 64 * 512 + 256 * (368 + 256) + 368 + 256
    upsampling = 64 * 128 * 3 + 128 + sum(128 * 128 * wide + 128 for wide in (25, 16, 16, 16))
    assert size(decoder) == 20 * layer + upsampling + 256 * 368 + 2 * (256 * 256 + 256)


@pytest.mark.parametrize("preset", ["base", "ae", "vae", "light", "mel"])
def test_published_forms(preset):
    chosen = settings("autoencoder", preset).objective
    forms = {
        "base": ("vq-vae", "wavenet"), "ae": ("ae", "wavenet"), "vae": ("vae", "wavenet"),
        "light": ("vq-vae", "recurrent"), "mel": ("vq-vae", "mel"),
    }  # fmt: skip
    assert (chosen.encoder.context.bottleneck.kind, chosen.decoder.kind) == forms[preset]
    if preset == "light":
        objective = build_objective(chosen)
        assert sum(each.numel() for each in objective.decoder.say.parameters()) == 3 * 896 * (512 + 896 + 2)
        assert all(block.convolve.bias is None for block in objective.encoder.context.blocks)
        # As in the code, a quarter of the mean square counts beside the mean likelihood of a sample.
        bottleneck, dim = objective.encoder.context.bottleneck.train(), objective.encoder.context.dim
        bottleneck.quantiser.codebook.zero_()
        passed = bottleneck(torch.full((1, 1, dim), 2.0), torch.ones(1, 1, dtype=torch.bool), 0.0, Draw(0), ("u",))
        assert passed.cost.item() / objective.encoder.hop == pytest.approx(0.25 * 2.0**2)


@pytest.mark.parametrize("bottleneck", BOTTLENECKS)
@pytest.mark.parametrize("decoder", DECODERS)
def test_every_pair_learns(decoder, bottleneck):
    objective = small("objective.segment=1", decoder=decoder, bottleneck=bottleneck)
    batch = spoken((3200, 4000, 3600))
    run = Run(objective, Run.Config(steps=8, learning_rate=2e-2, warmup=0.0))
    ticks = list(run.ticks([(batch,)] * 8))
    parts = [tick.parts for tick in ticks]
    assert parts[-1]["likelihood"] < 0.97 * parts[0]["likelihood"]
    assert all(math.isfinite(tick.grad_norm) for tick in ticks)
    names = {"ae": "latent norm", "vae": "divergence", "vq-vae": "perplexity"}
    assert {"likelihood", "bottleneck", names[bottleneck]} <= set(parts[0])
    if bottleneck == "vq-vae":
        assert parts[-1]["perplexity"] > 1


def test_the_likelihood_beats_the_marginal_one():
    objective, batch = small(bottleneck="ae"), spoken((3200, 4000, 3600))
    list(Run(objective, Run.Config(steps=30, learning_rate=1e-2, warmup=0.0)).ticks([(batch,)] * 30))
    loss = objective.eval()(batch, 0.0, Draw(0))
    assert loss.sum < loss.parts["marginal"] < loss.parts["chance"]
    assert loss.parts["chance"].item() == pytest.approx(math.log(LEVELS) * loss.weight.item(), rel=1e-5)


@pytest.mark.parametrize("decoder", DECODERS)
def test_every_parameter_has_a_gradient_and_none_is_nowhere(decoder):
    objective = small("objective.encoder.context.bottleneck.quantiser.learn=gradient", decoder=decoder).train()
    objective(spoken(), 0.5, Draw(0)).sum.backward()
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("decoder", DECODERS)
def test_it_sounds(decoder):
    objective = small("objective.spoken=0.04", decoder=decoder).eval()
    batch = spoken()
    first, same = (objective.reconstruct(batch, Draw(0)) for _ in range(2))
    assert torch.equal(first.samples, same.samples)
    assert first.samples.shape == (3, 640) and first.lengths.tolist() == [640] * 3
    assert first.samples.isfinite().all() and first.samples.abs().max() > 0
    other = objective.say(batch.waves, batch.utterances[::-1], Draw(0))
    assert not torch.equal(other.samples, first.samples)


def test_a_run_leaves_what_it_says_as_audio(tmp_path):
    quick = ("--preset", "nano", "--steps", 1, "--set", "objective.spoken=0.04")
    works("pretrain", "autoencoder", *quick, "--data", corpus(tmp_path / "speech", count=6), "--out", tmp_path / "run")
    said = torch.as_tensor(audio.read(tmp_path / "run" / "reconstruction.wav"))
    assert said.shape == (640,) and said.abs().max() > 0


def test_samples_are_written_as_they_are(tmp_path):
    samples = torch.tensor([0.0, 0.5, -0.25, 2.0])
    write(tmp_path / "a.wav", samples)
    read = torch.as_tensor(audio.read(tmp_path / "a.wav"))
    torch.testing.assert_close(read, samples.clamp(-1, 1), atol=1 / 32_000, rtol=0)


def test_what_is_read_is_the_latent_or_what_lies_below_it(tmp_path):
    objective = small().eval()
    latents = objective.encoder(spoken().waves)
    assert [layer.shape[2] for layer in latents.layers] == [16, 16]
    codes = objective.encoder.context.bottleneck.quantiser.codebook
    assert all((each == codes).all(-1).any() for each in latents.last[0])
    objective.encoder.save(tmp_path)
    assert torch.equal(Encoder.load(tmp_path)(spoken().waves).last, latents.last)
    below = small("objective.encoder.context.reads=hidden").eval()
    assert size(below) == size(objective)
    hidden = below.encoder(spoken().waves)
    assert [layer.shape[2] for layer in hidden.layers] == [32] and torch.equal(hidden.lengths, latents.lengths)
    project = objective.encoder.context.project
    torch.testing.assert_close(project(hidden.last)[hidden.valid], latents.layers[0][hidden.valid])


def test_an_encoder_without_bottleneck_is_refused():
    with pytest.raises(
        ConfigError, match=r"encoder\.context\.kind 'transformer' has no bottleneck, expected 'squeezed'"
    ):
        settings("autoencoder", changes=["objective.encoder.context.kind=transformer"])


def test_an_encoder_of_features_is_refused():
    """What lies in their waves is no sound to say again."""
    with pytest.raises(ConfigError, match=r"encoder\.frontend: 'precomputed' reads files of features, expected what"):
        small("objective.encoder.frontend.kind=precomputed", prepared=False)


def test_kernels_of_other_widths_are_refused():
    with pytest.raises(ConfigError, match=r"kernels hold 6, expected odd numbers of frames or 4"):
        settings("autoencoder", changes=["objective.encoder.context.kernels=[3,6]"])


def test_decoders_must_fill_the_time_of_a_latent():
    with pytest.raises(ConfigError, match=r"objective\.decoder\.strides: .* multiply to 160, expected the 320 samples"):
        small("objective.decoder.strides=[5,4,4,2]", prepared=False)
    with pytest.raises(ConfigError, match=r"objective\.decoder\.target: frames of 200 samples do not fill latents"):
        build_objective(settings("autoencoder", "mel", ["objective.decoder.target.hop=200"]).objective)
    with pytest.raises(ConfigError, match=r"filters .* must be as many as strides"):
        settings("autoencoder", changes=["objective.decoder.filters=[25,16,16]"])
    with pytest.raises(ConfigError, match=r"target must be centred, without deltas and normalised over the corpus"):
        settings("autoencoder", "mel", ["objective.decoder.target.deltas=1"])


# ---- its parts


def test_time_jitter_takes_neighbours_at_its_share():
    latents = torch.arange(1000.0).expand(40, -1)[..., None].contiguous()
    ids = tuple(map(str, range(40)))
    lengths = torch.full((40,), 1000)
    shift = (jitter(latents, lengths, 0.12, Draw(0), ids) - latents)[..., 0]
    assert set(shift.unique().tolist()) == {-1.0, 0.0, 1.0}
    for each in (-1.0, 1.0):
        assert (shift == each).float().mean().item() == pytest.approx(0.06, abs=0.005)
    always = jitter(latents[:, :4], torch.full((40,), 3), 1.0, Draw(0), ids)[..., 0]
    assert {0.0, 1.0} == set(always[:, 0].tolist()) and {1.0, 2.0} == set(always[:, 2].tolist())
    assert torch.equal(jitter(latents, lengths, 0.0, Draw(0), ids), latents)


def test_mu_law_is_finer_where_it_is_quiet():
    samples = torch.linspace(-1, 1, 100_001)
    error = (expand(compress(samples)) - samples).abs()
    assert compress(samples).unique().tolist() == list(range(LEVELS))
    assert (error <= 1.03 * math.log(LEVELS) / 255 * (samples.abs() + 1 / 255)).all()  # half a level
    levels = torch.arange(LEVELS)
    assert torch.equal(compress(expand(levels)), levels)
    assert compress(torch.tensor([0.0, 5.0, -5.0])).tolist() == [128, 255, 0]


def test_dumb_predictors_of_levels_are_counted():
    levels = Levels().eval()
    waves = Waves.pad([expand(torch.tensor([10, 20, 10, 20, 10])), expand(torch.tensor([10, 20, 30]))])
    levels.fit([waves])
    assert levels.pairs[10, 20] == 3 and levels.pairs[20, 10] == 2 and levels.pairs[20, 30] == 1
    assert levels.pairs.sum() == 6
    said = torch.tensor([[10, 20]])
    loss = levels.score(torch.zeros(1, 2, LEVELS), said, torch.tensor([[False, True]]))
    assert loss.weight == 1 and loss.sum.item() == pytest.approx(math.log(LEVELS))
    assert loss.parts["marginal"].item() == pytest.approx(-math.log(4 / (6 + LEVELS)))
    assert loss.parts["previous sample"].item() == pytest.approx(-math.log((3 + 4 / 262) / 4), rel=1e-5)
    assert before(said).tolist() == [[128, 10]]


def test_a_segment_s_samples_lie_under_its_latents():
    grid = Grid(320, 80.0)
    wave = torch.arange(2000.0)
    samples, inside = Segment(torch.tensor([2]), 2, grid).samples(Waves.pad([wave]))
    assert torch.equal(samples[0], wave[560:1200]) and inside.all()  # latents 2 and 3 centre on 720 and 1040
    samples, inside = Segment(torch.tensor([0]), 1, grid).samples(Waves.pad([wave[:200]]))
    assert torch.equal(samples[0, 80:280], wave[:200]) and inside.sum() == 200 and samples[0, 280:].sum() == 0


def wavenet():
    torch.manual_seed(0)
    config = WaveNet.Config(layers=3, residual=6, gate=5, skip=7, local=4, strides=(2, 2), filters=(4, 4))
    return WaveNet(config, 3, 2, Grid(4, 1.5)).eval()


def test_wavenet_knows_the_past_alone():
    decoder, heard = wavenet(), torch.randint(0, LEVELS, (2, 24))
    local, speakers = decoder.at_sample_rate(torch.randn(2, 6, 3)), torch.randn(2, 2)
    assert local.shape == (2, 24, 4)
    changed = heard.clone()
    changed[:, 12:] = (changed[:, 12:] + 100) % LEVELS
    one, other = decoder.logits(heard, local, speakers), decoder.logits(changed, local, speakers)
    assert torch.equal(one[:, :12], other[:, :12]) and not torch.equal(one[:, 12:], other[:, 12:])
    reach = 1 + 2 * (1 + 2 + 4)  # of both cycles
    changed = heard.clone()
    changed[:, 0] = (changed[:, 0] + 100) % LEVELS
    same = (decoder.logits(changed, local, speakers) == one).all(-1)[0]
    assert not same[reach - 1] and same[reach:].all()


def test_sampling_step_by_step_follows_what_training_says(monkeypatch):
    decoder, latents, speakers = wavenet(), torch.randn(2, 6, 3), torch.randn(2, 2)
    seen = []

    def likeliest(logits, generator):
        seen.append(logits)
        return logits.argmax(-1)

    monkeypatch.setattr("mockingjay.moves.decode.wavenet.sample", likeliest)
    said = compress(decoder.generate(latents, speakers, torch.Generator()))
    logits = decoder.logits(before(said), decoder.at_sample_rate(latents), speakers)
    torch.testing.assert_close(torch.stack(seen, 1), logits, atol=1e-5, rtol=0)


def test_speakers_are_learned_saved_and_strangers_are_strangers():
    utterances = spoken(speakers=("ann", "bob", None)).utterances
    speakers = Speakers(Speakers.Config(most=3, dim=4)).eval()
    assert speakers.rows(utterances).tolist() == [0, 0, 0]
    speakers.learn(["bob", None, "ann", "bob"])
    ann, bob, nobody = speakers.rows(utterances).tolist()
    assert {ann, bob} == {1, 2} and nobody == 0
    assert speakers.rows([replace(utterances[0], speaker="eve")]).tolist() == [0]
    other = Speakers(Speakers.Config(most=3, dim=4))
    other.load_state_dict(speakers.state_dict())
    assert torch.equal(other.eval()(utterances, Draw(0)), speakers(utterances, Draw(0)))
    with pytest.raises(
        ConfigError, match=r"objective\.speakers\.most: room for 3 speakers, but the corpus has 4; raise"
    ):
        speakers.learn(["a", "b", "c", "d"])


def test_speakers_are_withheld_at_their_share():
    speakers = Speakers(Speakers.Config(most=1, dim=1, withheld=0.1)).train()
    speakers.learn(["ann"])
    with torch.no_grad():
        speakers.table.weight.copy_(torch.tensor([[0.0], [1.0]]))
    utterance = spoken().utterances[0]
    many = [replace(utterance, id=str(number)) for number in range(4000)]
    assert speakers(many, Draw(0)).mean().item() == pytest.approx(0.9, abs=0.02)
    assert speakers.eval()(many, Draw(0)).min() == 1
