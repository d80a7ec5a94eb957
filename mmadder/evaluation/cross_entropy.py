"""Loss of a classifier on the validation or test set."""
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric
from mmengine.registry import METRICS


@METRICS.register_module()
class CrossEntropyMetric(BaseMetric):
    """Mean of ``-log p``, p the score of the true class.

    The test loss of Figures 1 and 2(d) of "Towards Stable and Robust
    AdderNets" (NeurIPS 2021): ``val_evaluator = [dict(type='Accuracy'),
    dict(type='CrossEntropyMetric')]``. Logged as ``test/cross_entropy``:
    where a name has ``loss`` in it, MMEngine logs the mean of the last ten
    values.

    Scores are MMPretrain's, float32 behind a softmax: p below 1.2e-38 counts
    as that, a loss of 87.
    """

    default_prefix = 'test'

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        for sample in data_samples:
            score = sample['pred_score'][sample['gt_label'].item()].float()
            smallest = torch.finfo(torch.float32).tiny
            self.results.append(-score.clamp(min=smallest).log().item())

    def compute_metrics(self, results: list[float]) -> dict[str, float]:
        return dict(cross_entropy=sum(results) / len(results))
