"""lm-evaluation-harness on a GGUF file (hf backend, CPU), with a clock that runs from the built requests to the scores."""

import os
import time

import torch
from lm_eval.models.huggingface import HFLM
from transformers.utils import logging


class Clocked:
    """The model, and the seconds that its requests took so far: reading the model and the data does not enter them."""

    def __init__(self, path, dtype, batch, threads):
        torch.set_num_threads(int(threads))
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.seconds = 0.0
        self.model = HFLM(
            pretrained=os.path.dirname(path), gguf_file=os.path.basename(path), device="cpu", dtype=dtype, batch_size=int(batch)
        )
        self._score = self.model.loglikelihood
        self.model.loglikelihood = self._timed

    def _timed(self, *arguments, **options):
        start = time.perf_counter()
        found = self._score(*arguments, **options)
        self.seconds += time.perf_counter() - start
        return found
