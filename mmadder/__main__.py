"""``python -m mmadder configs [TEXT]``: where the shipped configs lie."""
import argparse
import sys
from pathlib import Path


def config_folder():
    """Folder of the configs: inside the package, or beside it."""
    package = Path(__file__).resolve().parent
    for folder in (package / '.mim' / 'configs', package.parent / 'configs'):
        if (folder / '_base_').is_dir():
            return folder.resolve()
    sys.exit(f'mmadder: no configs below {package}; install the package anew')


def main():
    parser = argparse.ArgumentParser(prog='python -m mmadder')
    commands = parser.add_subparsers(required=True, dest='command')
    configs = commands.add_parser(
        'configs', help='print the paths of the configs, for _base_ in your '
        'own or for tools/train.py')
    configs.add_argument('text', nargs='?', default='',
                         help='only paths that contain it')
    args = parser.parse_args()
    folder = config_folder()
    paths = [path for path in sorted(folder.rglob('*.py'))
             if args.text in str(path.relative_to(folder))]
    if not paths:
        sys.exit(f'mmadder: no config in {folder} has {args.text!r} in its '
                 'path')
    print(*paths, sep='\n')


if __name__ == '__main__':
    main()
