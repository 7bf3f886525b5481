"""Checkpoints in the layouts of s3prl's releases, made small, and a reference that runs them as those releases do."""

import math
import sys
from argparse import Namespace
from types import ModuleType

import numpy as np
import torch
from torch import nn

DIM, HEADS, FEEDFORWARD = 12, 3, 20

MEL = {
    "target_level": -25, "win_ms": 25, "hop_ms": 10, "n_freq": 201, "n_mels": 80, "n_mfcc": 13,
    "input": {"feat_type": "mel", "channel": 0, "log": True, "delta": 0, "cmvn": True},
    "target": {"feat_type": "mel", "channel": 1, "log": True, "delta": 0, "cmvn": True},
}  # fmt: skip
FBANK = {
    "kaldi": {
        "feat_type": "fbank",
        "fbank": {"frame_length": 25.0, "frame_shift": 10.0, "num_mel_bins": 80, "use_log_fbank": True},
    },
    "delta": {"order": 2, "win_length": 5},
    "cmvn": {"use_cmvn": True},
}


class SelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(DIM, DIM) for _ in range(3))

    def forward(self, hidden, mask):
        def heads(values):
            return values.view(*values.shape[:2], HEADS, DIM // HEADS).permute(0, 2, 1, 3)

        query, key, value = heads(self.query(hidden)), heads(self.key(hidden)), heads(self.value(hidden))
        scores = query @ key.transpose(-1, -2) / math.sqrt(DIM // HEADS) + mask
        return (scores.softmax(-1) @ value).permute(0, 2, 1, 3).flatten(2)


class Output(nn.Module):
    def __init__(self, inputs):
        super().__init__()
        self.dense = nn.Linear(inputs, DIM)
        self.LayerNorm = nn.LayerNorm(DIM, eps=1e-12)

    def forward(self, hidden, residual):
        return self.LayerNorm(self.dense(hidden) + residual)


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.ModuleDict({"self": SelfAttention(), "output": Output(DIM)})
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(DIM, FEEDFORWARD)})
        self.output = Output(FEEDFORWARD)

    def forward(self, hidden, mask):
        hidden = self.attention["output"](self.attention["self"](hidden, mask), hidden)
        wide = self.intermediate["dense"](hidden)
        return self.output(wide * 0.5 * (1 + torch.erf(wide / math.sqrt(2))), hidden)


class Transformer(nn.Module):
    """What s3prl calls TransformerModel: names and arithmetic are those of its upstream/mockingjay/model.py."""

    def __init__(self, inputs, layers, shared=False):
        super().__init__()
        projection = {"spec_transform": nn.Linear(inputs, DIM), "LayerNorm": nn.LayerNorm(DIM, eps=1e-12)}
        self.input_representations = nn.ModuleDict(projection)
        one = Layer()
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(one if shared else Layer() for _ in range(layers))})
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3)

    def forward(self, frames, lengths):
        place, column = np.arange(frames.shape[1])[:, None], np.arange(DIM)[None]
        angles = place / np.power(10_000, 2 * (column // 2) / DIM)
        angles[:, 0::2], angles[:, 1::2] = np.sin(angles[:, 0::2]), np.cos(angles[:, 1::2])
        hidden = self.input_representations["spec_transform"](frames) + torch.from_numpy(angles).float()
        layers = [self.input_representations["LayerNorm"](hidden)]
        valid = torch.arange(frames.shape[1]) < lengths[:, None]
        mask = (1.0 - valid.float())[:, None, None] * -10_000.0
        for layer in self.encoder["layer"]:
            layers.append(layer(layers[-1], mask))
        return layers


def sizes(layers, **more):
    """Settings of a transformer; YAML makes text of 1e-12."""
    return {
        "hidden_size": DIM, "num_hidden_layers": layers, "num_attention_heads": HEADS, "hidden_act": "gelu",
        "intermediate_size": FEEDFORWARD, "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1,
        "initializer_range": 0.02, "layer_norm_eps": "1e-12", "share_layer": False, "max_input_length": 0,
        "pre_layer_norm": False, **more,
    }  # fmt: skip


# A class that readers do not have, of which the releases left an object in their optimiser's state.
OPTIMIZERS = sys.modules.setdefault("optimizers", ModuleType("optimizers"))
OPTIMIZERS.WarmupLinearSchedule = type("WarmupLinearSchedule", (), {"__module__": "optimizers"})


def schedule():
    found = OPTIMIZERS.WarmupLinearSchedule()
    found.warmup, found.total = 0.07, 500_000
    return found


def states(model, audio, **more):
    """The latest release's file."""
    optimiser = {"state": {}, "param_groups": [{"lr": 2e-4, "schedule": schedule(), "params": [0]}]}
    return {
        "SpecHead": {"dense.weight": torch.zeros(2, 2)},
        "Transformer": model.state_dict(),
        "Upstream_Config": {"transformer": sizes(len(model.encoder["layer"]), **more), "audio": audio, "task": {}},
        "Optimizer": optimiser,
        "Step": 1_000,
        "Args": Namespace(upstream="mockingjay", seed=1337, device="cuda"),
        "Config": {"runner": {"total_steps": 1_000_000}},
    }


def first_states(model, **more):
    """The first release's file, with TensorFlow's names of norms."""
    weights = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in model.state_dict().items()
    }
    settings = {"mockingjay": sizes(len(model.encoder["layer"]), **more)}
    return {
        "SpecHead": {},
        "Mockingjay": weights,
        "Optimizer": {},
        "Global_step": 500_000,
        "Settings": {"Config": settings, "Paras": Namespace(gpu=True)},
    }
