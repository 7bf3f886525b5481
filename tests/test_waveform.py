import pytest
import torch
import torch.nn.functional as F
from speech_like import LENGTHS, batch_of

from mockingjay.core.config import validate
from mockingjay.core.errors import ConfigError, DataError
from mockingjay.core.types import Frames, Waves, pad
from mockingjay.encoders.contexts import build_context
from mockingjay.encoders.contexts.causal_convolution import CausalConvolution
from mockingjay.encoders.contexts.convolution_pair import ConvolutionPair
from mockingjay.encoders.convolution import Convolution, convolve
from mockingjay.encoders.frontends.waveform import CPC_512, MODIFIED_CPC_256, WAV2VEC_512, Waveform
from mockingjay.encoders.norms import SequenceNorm

NORMS = ["none", "channel", "layer", "group", "batch"]


def small(**changes):
    torch.manual_seed(0)
    frontend = Waveform(Waveform.Config(**{"channels": 6, **changes}))
    for name, parameter in frontend.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.normal_(parameter, mean=0.5, std=0.2)
    return frontend


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    "kernel, stride, padding", [(10, 5, 3), (8, 4, 0), (3, 1, 0), (5, 2, 2), (4, 3, 1), (1, 1, 0), (2, 3, 0), (1, 2, 0)]
)
@pytest.mark.parametrize("bias", [True, False])
def test_convolutions_are_torch_s(kernel, stride, padding, bias):
    layer = Convolution(3, 4, kernel, stride, bias).double()
    if bias:
        torch.nn.init.normal_(layer.bias)
    values = torch.randn(2, 23, 3, dtype=torch.float64, requires_grad=True)
    weight = layer.weight.unflatten(1, (kernel, 3)).transpose(1, 2)
    expected = F.conv1d(values.transpose(1, 2), weight, layer.bias, stride, padding).transpose(1, 2)
    result = layer(values, padding)
    torch.testing.assert_close(result, expected)
    above = torch.randn_like(expected)
    wanted = torch.autograd.grad(expected, [values, *layer.parameters()], above)
    found = torch.autograd.grad(result, [values, *layer.parameters()], above)
    for mine, theirs in zip(found, wanted):
        torch.testing.assert_close(mine, theirs)


def test_convolutions_follow_autocast():
    values, weight = torch.randn(2, 20, 4), torch.randn(5, 8)
    with torch.autocast("cpu", torch.bfloat16):
        result = convolve(values, weight, torch.zeros(5), stride=2)
    assert result.dtype == torch.bfloat16
    torch.testing.assert_close(result.float(), convolve(values, weight, None, stride=2), atol=0.1, rtol=0.05)


def test_norms_are_what_they_are_called():
    values, valid = torch.randn(2, 7, 5) * 3 + 1, torch.arange(7) < torch.tensor([[7], [4]])
    mean, variance = values.mean(2, keepdim=True), values.var(2, keepdim=True)  # unbiased
    torch.testing.assert_close(SequenceNorm("channel", 5)(values, valid), (values - mean) / (variance + 1e-5).sqrt())
    torch.testing.assert_close(SequenceNorm("layer", 5)(values, None), F.layer_norm(values, (5,)))
    assert SequenceNorm("none", 5)(values, valid) is values
    for seen in (valid, None):
        grouped, batched = (SequenceNorm(kind, 5)(values, seen) for kind in ("group", "batch"))
        rows = [values[row, : 4 if row and seen is not None else 7] for row in range(2)]
        for row, own in enumerate(rows):
            alone = F.group_norm(own.t()[None], 1)[0].t()
            torch.testing.assert_close(grouped[row, : len(own)], alone, atol=1e-5, rtol=1e-5)
        expected = F.batch_norm(torch.cat(rows), None, None, training=True)
        found = torch.cat([batched[row, : len(own)] for row, own in enumerate(rows)])
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_silence_has_a_norm_and_a_gradient():
    frontend = small(norm="group", bias=False)
    frames = frontend(Waves.pad([torch.zeros(800), torch.zeros(600)])).values
    assert frames.isfinite().all()
    frames.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in frontend.parameters())


@pytest.mark.parametrize("config, parameters", [(CPC_512, 5_250_560), (WAV2VEC_512, 5_253_120)])
def test_published_sizes_of_frontends(config, parameters):
    assert size(Waveform(config)) == parameters


@pytest.mark.parametrize(
    "config, parameters",
    [
        (CausalConvolution.Config(), 7_091_712),
        (CausalConvolution.Config(kernels=tuple(range(2, 14)), skip="residual"), 23_611_392),
    ],
)
def test_published_sizes_of_contexts(config, parameters):
    assert size(build_context(config, 512)) == parameters


def test_a_window_of_cpc_has_128_frames_and_one_of_wav2vec_covers_465_samples():
    frontend = Waveform(CPC_512.model_copy(update={"channels": 2}))
    assert frontend.count(torch.tensor([20_480, 160, 320])).tolist() == [128, 1, 2]
    assert (frontend.grid.hop, frontend.grid.centre, frontend.receptive, frontend.reach) == (160, 79.5, 159, 465)
    frontend = Waveform(WAV2VEC_512.model_copy(update={"channels": 2}))
    assert frontend.count(torch.tensor([464, 465, 624, 625, 150_000])).tolist() == [0, 1, 1, 2, 935]
    assert (frontend.grid.hop, frontend.grid.centre, frontend.receptive, frontend.reach) == (160, 232.5, 465, 465)


@pytest.mark.parametrize("paddings", [(3, 2, 1, 1, 1), (0, 0, 0, 0, 0), (5, 0, 3, 0, 2)])
def test_counts_and_the_shortest_utterance_are_exact(paddings):
    frontend = small(paddings=paddings, channels=2)
    for length in (frontend.receptive, frontend.receptive + 1, 1000, 1001, 1239):
        frames = frontend(Waves.pad([torch.randn(length)]))
        assert frames.lengths.tolist() == [frames.values.shape[1]] == frontend.count(torch.tensor([length])).tolist()
    assert frontend.count(torch.tensor([frontend.receptive - 1])) == 0
    with pytest.raises(DataError, match=f"utterance of {frontend.receptive - 1} samples: shorter than the frontend"):
        frontend(Waves.pad([torch.randn(frontend.receptive - 1)]))


def test_frames_lie_in_the_middle_of_what_they_read():
    frontend = small(paddings=(0,) * 5)
    samples = torch.randn(1, 3000, requires_grad=True)
    frontend(Waves(samples, torch.tensor([3000]))).values[0, 7].sum().backward()
    touched = samples.grad[0].nonzero()[:, 0]
    assert (touched.min(), touched.max()) == (7 * 160, 7 * 160 + 464)
    assert (touched.min() + touched.max() + 1) / 2 == 7 * 160 + frontend.grid.centre


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("paddings", [(3, 2, 1, 1, 1), (0, 0, 0, 0, 0)])
def test_an_utterance_is_the_same_alone_and_in_a_batch(norm, paddings):
    frontend = small(norm=norm, paddings=paddings).eval()
    waves = batch_of(tuple(length // 4 for length in LENGTHS)).waves
    padding = torch.arange(waves.samples.shape[1]) >= waves.lengths[:, None]
    together = frontend(Waves(torch.where(padding, torch.randn_like(waves.samples), waves.samples), waves.lengths))
    assert together.values[~together.valid].abs().sum() == 0
    for row, length in enumerate(waves.lengths.tolist()):
        alone = frontend(Waves(waves.samples[row : row + 1, :length], waves.lengths[row : row + 1]))
        assert alone.lengths[0] == together.lengths[row]
        torch.testing.assert_close(together.values[row, : alone.lengths[0]], alone.values[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", NORMS)
def test_what_is_declared_to_leak_does_and_nothing_else(norm):
    frontend = small(norm=norm, paddings=(0,) * 5).train()
    early = int((2000 - 465) / 160) + 1  # frames that end before sample 2000
    samples = torch.randn(2, 4000)
    changed = samples.clone()
    changed[:, 2000:] = 2 * torch.randn_like(changed[:, 2000:])

    def same():
        lengths = torch.tensor([4000, 4000])
        one, other = (frontend(Waves(each, lengths)).values[:, :early] for each in (samples, changed))
        return torch.allclose(one, other, atol=1e-6)

    assert same() == (frontend.leaks == "nothing")
    assert frontend.eval().leaks == ("future" if norm in ("group", "batch") else "nothing")
    assert same() == (norm != "group")  # afterwards batch normalisation goes by its running averages


def test_compression_is_of_the_frames():
    plain, compressed = small(), small(logarithm=True)
    waves = batch_of((2000, 1600)).waves
    torch.testing.assert_close(compressed(waves).values, (plain(waves).values.abs() + 1).log())
    assert plain.dim == 6 and MODIFIED_CPC_256.norm == "channel"


@pytest.mark.parametrize(
    "changes, sentence",
    [
        ({"kernels": [3], "strides": [1, 1], "paddings": [0]}, r"kernels \(3,\) need as many strides and paddings"),
        ({"kernels": [], "strides": [], "paddings": []}, "kernels: tuple should have at least 1 item"),
        ({"kernels": [3], "strides": [0], "paddings": [0]}, "must be positive, and paddings narrower than their kerne"),
        ({"kernels": [3], "strides": [1], "paddings": [3]}, "must be positive, and paddings narrower than their kerne"),
    ],
)
def test_layers_that_do_not_fit_are_refused(changes, sentence):
    with pytest.raises(ConfigError, match=sentence):
        validate(Waveform.Config, changes)


@pytest.mark.parametrize("config", [CausalConvolution.Config, ConvolutionPair.Config])
def test_contexts_without_layers_or_taps_are_refused(config):
    for kernels in ([], [3, 0]):
        with pytest.raises(ConfigError, match="kernels"):
            validate(config, {"kernels": kernels})


def random_frames(dim=5, lengths=(19, 13)):
    return Frames(*pad([torch.randn(length, dim) for length in lengths]))


@pytest.mark.parametrize("skip", ["none", "residual", "dense"])
@pytest.mark.parametrize("inputs", [5, 3])
def test_causal_convolutions_are_what_a_loop_finds(skip, inputs):
    config = CausalConvolution.Config(kernels=(3, 1, 4), dim=5, norm="layer", skip=skip)
    context = build_context(config, inputs)
    frames = random_frames(inputs, (9,))
    said, expected = [frames.values[0]], []
    read = said[0]
    for kernel, convolution in zip(config.kernels, context.stack.convolutions):
        steps = []
        for step in range(9):
            taps = [read[max(0, step - back)] for back in reversed(range(kernel))]
            steps.append(F.layer_norm(convolution.weight @ torch.cat(taps) + convolution.bias, (5,)).relu())
        said.append(torch.stack(steps))
        summed = said if skip == "dense" else [read, said[-1]] if skip == "residual" else said[-1:]
        summed = [each for each in summed if each.shape == said[-1].shape]
        read = torch.stack(summed).sum(0) / len(summed) ** 0.5
        expected.append(read)
    for layer, wanted in zip(context(frames).layers, expected, strict=True):
        torch.testing.assert_close(layer[0], wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_causal_convolutions_are_causal_as_far_as_their_norm_is(norm):
    context = build_context(CausalConvolution.Config(kernels=(3, 2, 3), dim=4, norm=norm), 5)
    frames = random_frames()
    changed = Frames(frames.values.clone(), frames.lengths)
    changed.values[:, 8:] += 1.0

    def same():
        one, other = (context(each).last[:, :8] for each in (frames, changed))
        return torch.allclose(one, other, atol=1e-6)

    assert same() == context.causal == (norm in ("none", "channel", "layer"))
    for place in range(3):  # the convolutions themselves always are
        context.stack.norms[place] = SequenceNorm("none", 4)
    assert same()


@pytest.mark.parametrize("norm", ["channel", "group"])
def test_the_backward_stack_is_the_forward_one_run_on_the_utterance_turned_around(norm):
    context = ConvolutionPair(ConvolutionPair.Config(kernels=(1, 2, 3), dim=8, norm=norm), 5)
    context.backward.load_state_dict(context.onward.state_dict())
    frames = random_frames()
    together = context(frames)
    for row, length in enumerate((19, 13)):
        turned = frames.values[row : row + 1, :length].flip(1)
        onward = context(Frames(turned, torch.tensor([length]))).last[0, :, :4]
        torch.testing.assert_close(together.last[row, :length, 4:], onward.flip(0), atol=1e-6, rtol=1e-5)


def test_no_direction_sees_what_it_is_asked_for():
    context = ConvolutionPair(ConvolutionPair.Config(kernels=(1, 2, 3), dim=8), 5)
    frames = random_frames()
    changed = Frames(frames.values.clone(), frames.lengths)
    changed.values[:, 6] += 1.0
    moved = (context(frames).last - context(changed).last).abs() > 1e-6
    assert not moved[:, :6, :4].any() and moved[:, 6, :4].any()  # forward: not before
    assert not moved[:, 7:, 4:].any() and moved[:, 6, 4:].any()  # backward: not after
