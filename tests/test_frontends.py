import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mockingjay.core import config as configuration
from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.types import SAMPLE_RATE, Frames, Waves
from mockingjay.encoders.frontends import FrontendConfig, build_frontend, unstack
from mockingjay.encoders.frontends import framing as framing_module
from mockingjay.encoders.frontends.conditioning import Level
from mockingjay.encoders.frontends.deltas import polynomial_deltas, regression_deltas
from mockingjay.encoders.frontends.fbank import APC_80, FBANK_240, MPC_40, Fbank
from mockingjay.encoders.frontends.framing import Framing
from mockingjay.encoders.frontends.linear import LINEAR_201, LINEAR_1025, Linear
from mockingjay.encoders.frontends.log_mel import MOCKINGJAY_160, TERA_80, LogMel
from mockingjay.encoders.frontends.mfcc import MFCC, MFCC_39
from mockingjay.encoders.frontends.normalise import Normalise
from mockingjay.encoders.frontends.stacked import UNSTACKED, Stacked
from mockingjay.representations.features import Features

PUBLISHED = {
    "MOCKINGJAY_160": MOCKINGJAY_160,
    "TERA_80": TERA_80,
    "LINEAR_1025": LINEAR_1025,
    "LINEAR_201": LINEAR_201,
    "FBANK_240": FBANK_240,
    "APC_80": APC_80,
    "MPC_40": MPC_40,
    "MFCC_39": MFCC_39,
    "stacked": Stacked.Config(),
    "stacked fbank": Stacked.Config(factor=4, inner=FBANK_240),
}
each_published = pytest.mark.parametrize("config", PUBLISHED.values(), ids=PUBLISHED.keys())
SPECTRAL = {kind: frontend for kind, frontend in UNSTACKED.items() if kind != "precomputed"} | {"stacked": Stacked}
each_kind = pytest.mark.parametrize("kind", SPECTRAL)
LENGTHS = (9_000, 16_000, 2_345)


@pytest.fixture(scope="module")
def librosa():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import librosa
        import librosa.feature
    return librosa


def speech_like(samples, seed=0):
    """Noise with a moving spectrum and level, at ordinary loudness."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples, generator=generator)
    time = torch.arange(samples) / SAMPLE_RATE
    return 0.02 * noise * (1.2 + torch.sin(20 * time)) + 0.1 * torch.sin(600 * time + 40 * torch.sin(9 * time))


def waves_of(lengths=LENGTHS):
    return Waves.pad([speech_like(length, seed) for seed, length in enumerate(lengths)])


def changed(config, **values):
    """The config with leaves set, on the inner frontend where it is stacked."""
    if isinstance(config, Stacked.Config):
        return config.model_copy(update={"inner": config.inner.model_copy(update=values)})
    return config.model_copy(update=values)


def fitted(config, waves=None):
    frontend = build_frontend(config)
    frontend.fit([waves or waves_of()])
    return frontend


def plain(config):
    """The config without normalisation, level or derivatives."""
    leaves = {"normalise": "none", "level": None, "deltas": 0}
    inner = config.inner if isinstance(config, Stacked.Config) else config
    return changed(config, **{key: value for key, value in leaves.items() if key in type(inner).model_fields})


def standardised(values):
    return (values - values.mean(0)) / values.std(0)


# Agreement with others


def librosa_power(librosa, wave, window, fft, hop):
    return np.abs(librosa.stft(wave, n_fft=fft, win_length=window, hop_length=hop, pad_mode="reflect")) ** 2


def test_mockingjay_features_agree_with_librosa(librosa):
    wave = speech_like(20_000).numpy()
    power = librosa_power(librosa, wave, 800, 2048, 200)
    mel = np.log(librosa.filters.mel(sr=SAMPLE_RATE, n_fft=2048, n_mels=80) @ power + 1e-6)
    expected = standardised(np.concatenate([mel, librosa.feature.delta(mel)]).T)
    frames = LogMel(MOCKINGJAY_160)(Waves.pad([torch.from_numpy(wave)]))
    np.testing.assert_allclose(frames.values[0].numpy(), expected, atol=1e-3)


def test_tera_features_agree_with_librosa(librosa):
    wave = speech_like(20_000).numpy()
    level = wave * 10 ** (-25 / 20) / np.sqrt(np.mean(wave**2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some of these bands are empty, as published
        filters = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=400, n_mels=80, htk=True, norm=None)
    mel = np.log(filters @ librosa_power(librosa, level, 400, 400, 160) + 1e-10).T
    sounding = filters.sum(1) > 0
    frames = LogMel(TERA_80)(Waves.pad([torch.from_numpy(wave)])).values[0].numpy()
    np.testing.assert_allclose(frames[:, sounding], standardised(mel[:, sounding]), atol=1e-3)
    assert not frames[:, ~sounding].any()


def test_log_mel_with_magnitudes_and_second_derivatives_agrees_with_librosa(librosa):
    wave = speech_like(20_000).numpy()
    magnitude = np.sqrt(librosa_power(librosa, wave, 800, 2048, 200))
    mel = np.log(librosa.filters.mel(sr=SAMPLE_RATE, n_fft=2048, n_mels=80) @ magnitude + 1e-6)
    expected = np.concatenate([mel, librosa.feature.delta(mel), librosa.feature.delta(mel, order=2)]).T
    frames = LogMel(LogMel.Config(power=1, deltas=2, normalise="none"))(Waves.pad([torch.from_numpy(wave)]))
    np.testing.assert_allclose(frames.values[0].numpy(), expected, atol=1e-3)


def test_linear_decibels_agree_with_librosa(librosa):
    wave = speech_like(20_000).numpy()
    emphasised = np.append(wave[0], wave[1:] - 0.97 * wave[:-1]).astype(np.float32)
    magnitude = np.sqrt(librosa_power(librosa, emphasised, 800, 2048, 200))
    expected = np.clip((20 * np.log10(np.maximum(1e-5, magnitude)) - 20 + 100) / 100, 0, 1).T
    frames = Linear(changed(LINEAR_1025, normalise="none"))(Waves.pad([torch.from_numpy(wave)]))
    np.testing.assert_allclose(frames.values[0].numpy(), expected, atol=1e-3)
    assert 0.1 < expected.mean() < 0.9


def test_linear_log_power_agrees_with_librosa(librosa):
    wave = speech_like(20_000).numpy()
    expected = np.log(librosa_power(librosa, wave, 400, 400, 160) + 1e-10).T
    frames = Linear(plain(LINEAR_201))(Waves.pad([torch.from_numpy(wave)]))
    np.testing.assert_allclose(frames.values[0].numpy(), expected, atol=1e-3)


def test_mfcc_agrees_with_librosa(librosa):
    wave = speech_like(20_000).numpy()
    mel = librosa.filters.mel(sr=SAMPLE_RATE, n_fft=512, n_mels=80) @ librosa_power(librosa, wave, 400, 512, 160)
    mfcc = librosa.feature.mfcc(S=librosa.power_to_db(mel, top_db=None), n_mfcc=13)
    expected = np.concatenate([mfcc, librosa.feature.delta(mfcc), librosa.feature.delta(mfcc, order=2)]).T
    frames = MFCC(changed(MFCC_39, normalise="none"))(Waves.pad([torch.from_numpy(wave)]))
    np.testing.assert_allclose(frames.values[0].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("shape", ["povey", "hamming"])
@pytest.mark.parametrize("mels", [40, 80])
def test_fbank_agrees_with_kaldi(shape, mels):
    import kaldi_native_fbank as knf

    wave = speech_like(20_000)
    options = knf.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.window_type = shape
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = mels
    kaldi = knf.OnlineFbank(options)
    kaldi.accept_waveform(SAMPLE_RATE, (wave * 32_768).tolist())
    kaldi.input_finished()
    expected = np.stack([kaldi.get_frame(index) for index in range(kaldi.num_frames_ready)])
    frames = Fbank(Fbank.Config(mels=mels, shape=shape, normalise="none"))(Waves.pad([wave]))
    np.testing.assert_allclose(frames.values[0].numpy(), expected, atol=1e-3)


@pytest.mark.parametrize("length", [1, 2, 5, 30])
def test_regression_deltas_are_those_of_a_naive_loop(length):
    values = torch.randn(length, 3)
    frames = regression_deltas(Frames(values[None], torch.tensor([length])), 2, 5)
    first = np.arange(-2, 3) / 10
    for order, kernel in ((1, first), (2, np.convolve(first, first))):
        reach = len(kernel) // 2
        for t in range(length):
            expected = sum(kernel[j + reach] * values[min(max(t + j, 0), length - 1)] for j in range(-reach, reach + 1))
            torch.testing.assert_close(frames.values[0, t, 3 * order : 3 * order + 3], expected, atol=1e-5, rtol=0)


def test_polynomial_deltas_of_a_parabola_are_its_derivatives():
    t = torch.arange(20.0)[:, None]
    values = 3 * t - 0.5 * t**2
    frames = polynomial_deltas(Frames(values[None], torch.tensor([20])), 2, 9).values[0]
    torch.testing.assert_close(frames[4:-4, 1], (3 - t)[4:-4, 0], atol=1e-4, rtol=0)
    assert torch.equal(frames[:4, 1], frames[4, 1].expand(4))
    torch.testing.assert_close(frames[:, 2], torch.full((20,), -1.0), atol=1e-4, rtol=0)


# Lengths and padding


@each_published
@pytest.mark.parametrize("normalise", ["none", "utterance", "global"])
def test_padding_content_and_batch_mates_do_not_matter(config, normalise):
    waves = waves_of((9_000, 16_000, 1_921, 6_400))
    frontend = fitted(changed(config, normalise=normalise), waves)
    noise = torch.randn_like(waves.samples).masked_fill(torch.rand(waves.samples.shape) < 0.01, torch.nan)
    inside = torch.arange(waves.samples.shape[1]) < waves.lengths[:, None]
    frames = frontend(Waves(torch.where(inside, waves.samples, noise), waves.lengths))
    for row, length in enumerate(waves.lengths.tolist()):
        alone = frontend(Waves.pad([waves.samples[row, :length]]))
        own = frames.values[row, : frames.lengths[row]]
        assert alone.lengths[0] == frames.lengths[row] == alone.values.shape[1]
        torch.testing.assert_close(own, alone.values[0], atol=1e-5, rtol=0)
    assert not frames.values[~frames.valid].any()


@each_published
def test_measuring_at_once_equals_measuring_row_by_row(config, monkeypatch):
    waves = waves_of()
    frontend = fitted(config)
    expected = frontend(waves)
    monkeypatch.setattr(framing_module, "_row_by_row", framing_module._at_once)
    torch.testing.assert_close(frontend(waves).values, expected.values, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def frontends():
    return {name: fitted(config) for name, config in PUBLISHED.items()}


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(sorted(PUBLISHED)), extra=st.lists(st.integers(0, 3_000), min_size=1, max_size=3))
def test_counts_are_those_of_forward(frontends, name, extra):
    frontend = frontends[name]
    lengths = torch.tensor([frontend.receptive + samples for samples in extra])
    frames = frontend(Waves(torch.randn(len(lengths), int(lengths.max())), lengths))
    assert frames.lengths.tolist() == frontend.count(lengths).tolist()
    assert frames.values.shape == (len(lengths), int(frames.lengths.max()), frontend.dim)


@given(samples=st.integers(0, 10**9), hop=st.integers(1, 1000), half=st.integers(1, 2000), centre=st.booleans())
def test_counts_are_the_closed_form(samples, hop, half, centre):
    framing = Framing(2 * half, hop, centre)
    expected = samples // hop + 1 if centre else (samples - 2 * half) // hop + 1
    assert int(framing.count(torch.tensor([samples]))) == (expected if samples >= framing.receptive else 0)


@each_published
def test_the_shortest_utterance_gives_frames_and_a_shorter_one_is_refused(config):
    frontend = fitted(config)
    frames = frontend(Waves.pad([speech_like(frontend.receptive)]))
    assert frames.lengths[0] >= 1 and frames.values.isfinite().all()
    assert int(frontend.count(torch.tensor([frontend.receptive - 1]))) == 0
    with pytest.raises(DataError, match=f"utterance of {frontend.receptive - 1} samples: shorter than"):
        frontend(Waves.pad([speech_like(16_000), speech_like(frontend.receptive - 1)]))


def test_the_refusal_says_what_to_do():
    with pytest.raises(DataError) as error:
        LogMel(MOCKINGJAY_160)(Waves.pad([torch.zeros(100)]))
    assert str(error.value) == (
        "utterance of 100 samples: shorter than the frontend can read, expected at least 1600 (100 ms); "
        "leave it out or raise the shortest duration that is kept"
    )


@each_published
@pytest.mark.parametrize("seconds", [0.3001, 0.512, 0.7703])
def test_a_click_peaks_in_the_frame_nearest_to_it(config, seconds):
    config = plain(config)
    if isinstance(config, Linear.Config):
        config = changed(config, scale="log")  # decibels clip
    frontend = build_frontend(config)
    samples = torch.zeros(1, SAMPLE_RATE)
    samples[0, round(seconds * SAMPLE_RATE)] = 0.5
    frames = frontend(Waves(samples, torch.tensor([SAMPLE_RATE])))
    loudness = frames.values[0].double().sum(1)
    if isinstance(config, MFCC.Config):
        loudness = frames.values[0, :, 0]
    nearest = frontend.grid.nearest(torch.tensor([seconds]), int(frames.lengths[0]))
    assert loudness.argmax() == nearest[0]


# Numbers


@each_published
@pytest.mark.parametrize("amplitude", [1e-30, 1e-8, 1.0, 1e4])
def test_features_and_gradients_are_finite_at_any_amplitude(config, amplitude):
    waves = waves_of((4_000, 2_345))
    samples = (waves.samples * amplitude).requires_grad_()
    frames = fitted(config)(Waves(samples, waves.lengths))
    frames.values.square().sum().backward()
    assert frames.values.isfinite().all()
    assert samples.grad.isfinite().all()


@each_published
@pytest.mark.parametrize("level", [0.0, 0.1])
def test_silence_is_zero_after_normalisation(config, level):
    waves = Waves.pad([torch.full((length,), level) for length in LENGTHS])
    values = build_frontend(changed(config, normalise="utterance"))(waves).values
    assert values.isfinite().all()
    assert values.abs().max() <= 10
    if level == 0:
        assert not values.any()


def test_the_level_of_a_whole_recording_is_that_of_an_utterance_and_stays_on_its_device():
    level, samples = Level(-25.0), torch.randn(1, 900)
    with level.heard(samples[0].split(300)):
        whole = level(Waves(samples, torch.tensor([900]))).samples
        part = level(Waves(samples[:, 300:600], torch.tensor([300]))).samples
    torch.testing.assert_close(whole, level(Waves(samples, torch.tensor([900]))).samples)
    torch.testing.assert_close(part, whole[:, 300:600])
    elsewhere = samples.to("meta")  # as on CUDA, arithmetic with a tensor of the host is refused there
    with level.heard(elsewhere[0].split(300)):
        assert level(Waves(elsewhere, torch.tensor([900], device="meta"))).samples.shape == (1, 900)


def test_statistics_that_are_given_go_where_the_frames_are():
    """Those of features say nothing of a device: they have no buffers."""
    normalise = Normalise("utterance", 4)
    elsewhere = Frames(torch.randn(1, 9, 4).to("meta"), torch.tensor([9], device="meta"))
    with normalise.given(torch.zeros(4), torch.ones(4)):
        assert normalise(elsewhere).values.shape == (1, 9, 4)


def test_silence_inside_an_utterance_keeps_its_frames():
    wave = speech_like(16_000)
    wave[4_000:12_000] = 0
    frames = LogMel(TERA_80)(Waves.pad([wave]))
    assert frames.lengths.tolist() == [101] and frames.valid.all() and frames.values.isfinite().all()


@pytest.mark.parametrize("config", [config for name, config in PUBLISHED.items() if "stacked" not in name])
def test_normalised_dimensions_have_mean_zero_and_deviation_one(config):
    frames = build_frontend(changed(plain(config), normalise="utterance"))(waves_of())
    for row, length in zip(frames.values, frames.lengths):
        mean, std = row[:length].mean(0), row[:length].std(0, correction=0)
        silent = std < 0.5  # an empty band is zero throughout
        assert mean.abs().max() < 2e-2
        torch.testing.assert_close(std[~silent], torch.ones_like(std[~silent]), atol=2e-2, rtol=0)
        assert silent.float().mean() < 0.1


# Global statistics


def test_global_statistics_are_those_of_all_valid_frames():
    batches = [Frames(torch.randn(2, 7, 3) * 4 + 1000, torch.tensor([7, 2])) for _ in range(5)]
    normalise = Normalise("global", 3)
    normalise.fit(batches)
    everything = torch.cat([frames.values[frames.valid] for frames in batches])
    torch.testing.assert_close(normalise.mean, everything.mean(0))
    torch.testing.assert_close(normalise.std, everything.double().std(0, correction=0).float())


@each_kind
def test_global_normalisation_survives_saving_bit_for_bit(kind):
    config = changed(SPECTRAL[kind].Config(), normalise="global")
    trained, loaded, waves = fitted(config), build_frontend(config), waves_of()
    with pytest.raises(ConfigError, match=r"frontend\.normalise: 'global' without statistics.*call fit\(waves\) once"):
        loaded(waves)
    loaded.load_state_dict(trained.state_dict())
    assert torch.equal(loaded(waves).values, trained(waves).values)
    assert sum(name.endswith((".mean", ".std")) for name in trained.state_dict()) == 2


def test_only_global_statistics_are_saved():
    assert all(not build_frontend(kind.Config()).state_dict() for kind in SPECTRAL.values())


def test_fitting_to_nothing_is_refused():
    frontend = build_frontend(MPC_40)
    with pytest.raises(DataError, match="global normalisation: no frame in the corpus, expected at least one"):
        frontend.fit([])


# Stacking, tables and configs


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_unstacking_undoes_stacking_up_to_the_remainder(factor):
    waves = waves_of()
    inner = build_frontend(TERA_80)
    stacked = Stacked(Stacked.Config(factor=factor, inner=TERA_80))
    narrow, wide = inner(waves), stacked(waves)
    assert stacked.dim == factor * inner.dim
    assert stacked.grid.hop == factor * inner.grid.hop
    torch.testing.assert_close(stacked.grid.times(1)[0], inner.grid.times(factor).mean())
    flat = unstack(wide.values, factor)
    for row, length in enumerate(narrow.lengths.tolist()):
        kept = length - length % factor
        assert wide.lengths[row] == length // factor
        assert torch.equal(flat[row, :kept], narrow.values[row, :kept])


@pytest.mark.parametrize(("config", "dim"), [(c, int(n.split("_")[1])) for n, c in PUBLISHED.items() if "_" in n])
def test_published_widths(config, dim):
    assert build_frontend(config).dim == dim


@each_published
def test_configs_survive_a_round_trip(config):
    class Holder(configuration.Config):
        frontend: FrontendConfig = MOCKINGJAY_160

    assert configuration.validate(Holder, Holder(frontend=config).model_dump()).frontend == config


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"window": 400, "fft": 256}, "fft: shorter than the window of 400 samples, expected at least that (256)"),
        ({"delta_width": 4}, "delta_width: even, expected an odd number of frames (4)"),
        ({"window": 401}, "window: input should be a multiple of 2 (401)"),
    ],
)
def test_contradictory_settings_are_named(values, text):
    with pytest.raises(ConfigError) as error:
        configuration.validate(LogMel.Config, values)
    assert text in str(error.value)


def test_features_are_a_representation_of_one_layer():
    frontend = build_frontend(TERA_80)
    features = Features(frontend)
    hidden = features(waves_of())
    assert (features.dim, features.depth, features.hop, features.receptive) == (80, 1, 160, frontend.receptive)
    assert torch.equal(hidden.last, frontend(waves_of()).values)
    assert len(hidden.layers) == 1 and hidden.lengths.tolist() == [57, 101, 15]


@pytest.mark.real
def test_real_speech_is_finite_and_normalised(speech):
    import soundfile

    path = next(iter(sorted((speech / "timit_nltk" / "audio").rglob("*.*"))))
    samples, _ = soundfile.read(path, dtype="float32")
    for config in PUBLISHED.values():
        values = fitted(config)(Waves.pad([torch.from_numpy(samples)])).values
        assert values.isfinite().all() and values.abs().max() < 40
