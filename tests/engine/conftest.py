"""What is logged."""
import logging

import pytest
from mmengine.logging import MMLogger


@pytest.fixture
def warnings():
    """Collect what the current logger is told."""
    texts = []

    class Collector(logging.Handler):

        def emit(self, record):
            texts.append(record.getMessage())

    collector, logger = Collector(), MMLogger.get_current_instance()
    logger.addHandler(collector)
    yield texts
    logger.removeHandler(collector)
