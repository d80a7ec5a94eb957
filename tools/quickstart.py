"""From nothing to VOC mAP of an adder Faster R-CNN on handwritten digits.

Runs ordinary commands of this repository one after the other and prints
them. Run again, it goes on where it stopped; finished stages are skipped.
"""
import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = Path(os.path.relpath(ROOT / 'configs' / 'digits'))
INTERRUPTED = 130
# Lines of a stage to show: its progress, without date and level.
PROGRESS = re.compile(r'Epoch\(train\)|Epoch\(\w+\).*(mAP|top1)')
NOISE = re.compile(r'^.* INFO - |base_lr: \S+ |(data_)?time: \S+ +')
LINE_WIDTH = 100
SHOWN_OF_FAILURE = 20


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=Path(
        'work_dirs/quickstart'), help='default: %(default)s')
    parser.add_argument('--data-root', type=Path, default=Path('data/digits'),
                        help='where the digits are made, default: '
                        '%(default)s')
    parser.add_argument('--variant', default='ann-awn-centered',
                        choices=['ann-awn-centered', 'ann-awn', 'cnn'],
                        help='adders with adaptive weight normalization and '
                        'centered outputs, which begin as convolutions; the '
                        "paper's adders, not centered; or the convolutional "
                        'twin. Default: %(default)s')
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args()


class Quickstart:
    """The stages, each a command with a stamp that says it is done."""

    def __init__(self, work_dir, data_root, variant, seed):
        self.work_dir, self.data_root = work_dir, data_root
        self.seed = seed
        self.classifier = f'{CONFIGS}/{variant}-resnet18_1xb32-5e_digits.py'
        self.detector = next(CONFIGS.glob(
            f'faster-rcnn_{variant}-r18_{variant}-fpn_*_digits.py'))
        self.log = []  # of dicts: stage, command, seconds

    def run(self):
        """Run all stages; return the figures and the page."""
        self.stage('data', 'tools/make_digits.py', self.data_root)
        backbone = self.train('pretrain', self.classifier)
        detector = self.train(
            'detect', self.detector, '--cfg-options',
            f'model.backbone.init_cfg.checkpoint={backbone}')
        results = self.work_dir / 'results.pkl'
        self.stage('test', 'tools/test.py', self.detector, detector,
                   '--work-dir', self.work_dir / 'test', '--data-root',
                   self.data_root, '--out', results)
        return self.report(results)

    def train(self, stage, config, *options):
        """Train and return the last checkpoint."""
        folder = self.work_dir / stage
        resume = ['--resume'] if (folder / 'last_checkpoint').exists() else []
        self.stage(stage, 'tools/train.py', config, '--work-dir', folder,
                   '--data-root', self.data_root, '--seed', self.seed,
                   *options, rerun_options=resume)
        return Path((folder / 'last_checkpoint').read_text().strip())

    def report(self, results):
        """Write the page from all that was measured."""
        out = self.work_dir / 'report'
        total = sum(entry['seconds'] for entry in self.log)
        facts = [f'time of {entry["stage"]}={entry["seconds"]:.0f} s'
                 for entry in self.log] + [f'time of all={total / 60:.1f} min']
        self.execute(
            'report', 'tools/analysis/report_detection.py', self.detector,
            results, '--run', self.work_dir / 'detect', '--out', out,
            '--data-root', self.data_root, '--title',
            'Faster R-CNN on handwritten digits', '--cfg-options',
            f'randomness.seed={self.seed}',
            *(f'--fact={fact}' for fact in facts),
            *(f'--command={entry["command"]}' for entry in self.log))
        summary = json.loads((out / 'summary.json').read_text())
        summary.update(stages=self.log)
        (out / 'summary.json').write_text(json.dumps(summary, indent=1))
        return summary, out / 'index.html'

    def stage(self, name, *command, rerun_options=()):
        """Run a command unless its stamp says that it is done."""
        stamp = self.work_dir / f'{name}.done.json'
        script = os.path.relpath(ROOT / command[0])
        text = shlex.join(['python', script, *map(str, command[1:])])
        if stamp.is_file():
            entry = json.loads(stamp.read_text())
            if entry['command'] == text:
                print(f'--- {name}: done before')
                self.log.append(entry)
                return
            sys.exit(f'quickstart: {self.work_dir} holds a run with other '
                     f'settings ({entry["command"]}); remove it or choose '
                     'another --work-dir')
        print(f'\n--- {name}\n$ {text}', flush=True)
        start = time.time()
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self.execute(name, *command, *rerun_options)
        entry = dict(stage=name, command=text,
                     seconds=round(time.time() - start, 1))
        stamp.write_text(json.dumps(entry))
        self.log.append(entry)

    def execute(self, name, script, *arguments):
        """Run a script; its output goes to a log, its progress is shown."""
        log = self.work_dir / f'{name}.log'
        with open(log, 'w') as output, subprocess.Popen(
                [sys.executable, ROOT / script, *map(str, arguments)],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                env=dict(os.environ, PYTHONUNBUFFERED='1')) as process:
            for line in process.stdout:
                output.write(line)
                if PROGRESS.search(line):
                    print(NOISE.sub('', line.rstrip())[:LINE_WIDTH],
                          flush=True)
        if process.returncode == INTERRUPTED:
            raise KeyboardInterrupt
        if process.returncode:
            print(*log.read_text().splitlines()[-SHOWN_OF_FAILURE:],
                  sep='\n', file=sys.stderr)
            sys.exit(f'quickstart: {script} failed, see above and {log}; '
                     'once that is put right the same command goes on from '
                     'here')


def main():
    args = parse_args()
    kind = 'convolutions' if args.variant == 'cnn' else 'adders'
    print(f'Quickstart: make digit scenes, pretrain a ResNet-18 of {kind}, '
          f'train a Faster R-CNN with it,\nmeasure VOC mAP and draw it. 8 to '
          f'17 minutes on two cores. All goes to {args.work_dir}.',
          flush=True)
    quickstart = Quickstart(args.work_dir, args.data_root, args.variant,
                            args.seed)
    try:
        summary, page = quickstart.run()
    except KeyboardInterrupt:
        print('\nInterrupted; the same command goes on from here.',
              file=sys.stderr)
        sys.exit(INTERRUPTED)
    seconds = sum(entry['seconds'] for entry in quickstart.log)
    print(f'\nVOC mAP {summary["mAP"]:.3f} (IoU 0.5, 11-point) on '
          f'{summary["pictures"]} test scenes, {seconds / 60:.1f} minutes')
    print(page)


if __name__ == '__main__':
    main()
