"""What a representation is good for: probes, fine-tuning, extraction and prediction, on any `Representation`."""

from mockingjay.downstream.extract import extract, read_index
from mockingjay.downstream.fit import Config, Result, fit_probe
from mockingjay.downstream.partition import Partition, partition
from mockingjay.downstream.predict import Prediction, predict
from mockingjay.downstream.probe import Probe
from mockingjay.downstream.scores import Scores, paired_difference
from mockingjay.downstream.storage import load_probe, save_probe
from mockingjay.downstream.tasks import open_task

__all__ = [
    "Config",
    "Partition",
    "Prediction",
    "Probe",
    "Result",
    "Scores",
    "extract",
    "fit_probe",
    "load_probe",
    "open_task",
    "paired_difference",
    "partition",
    "predict",
    "read_index",
    "save_probe",
]
