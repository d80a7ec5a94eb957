"""What the command lines in ``tools/`` share."""
from .config import (add_device_option, add_trust_option, build_model,
                     build_runner, load_config, make_parser, read_trust,
                     require_file, resume, short_messages)
from .data_root import replace_data_root

__all__ = [
    'add_device_option', 'add_trust_option', 'build_model', 'build_runner',
    'load_config', 'make_parser', 'read_trust', 'replace_data_root',
    'require_file', 'resume', 'short_messages'
]
