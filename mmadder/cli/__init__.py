"""What the command lines in ``tools/`` share."""
from .config import load_config
from .options import (
                      add_cfg_options,
                      add_classes_option,
                      add_config_options,
                      add_device_option,
                      add_trust_option,
                      make_parser,
                      read_trust,
                      require_device,
)
from .runner import build_runner, resume, runner_config, short_messages

__all__ = [
    'add_cfg_options', 'add_classes_option', 'add_config_options',
    'add_device_option', 'add_trust_option', 'build_runner', 'load_config',
    'make_parser', 'read_trust', 'require_device', 'resume', 'runner_config',
    'short_messages'
]
