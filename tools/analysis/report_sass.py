"""Report the instructions of the compiled CUDA kernels, and what they mean.

Reads the built extension with cuobjdump; needs no GPU and runs nothing. The
times are calculated (docs/scaling.md).

    python tools/analysis/report_sass.py
    python tools/analysis/report_sass.py --arch sm_86 --file mine.cubin
"""
import argparse

from mmadder import cli
from mmadder.benchmark import cuda_time, sass, shapes
from mmadder.errors import InputError
from mmadder.files import require_file
from mmadder.ops.extension import BINARY

IMAGENET, VOC = 1_281_167, 16_551
WORK = {  # images of an epoch, adder layers of one image
    'ResNet-18, ImageNet, 224x224':
        (IMAGENET, shapes.resnet18(1, (224, 224))),
    'Faster R-CNN R18-FPN, VOC07+12, 608x1024':
        (VOC, shapes.resnet18(1, (608, 1024)) + shapes.fpn(1, (608, 1024))),
}


def parse_args():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--file', help='library, object or cubin '
                        '(default: the built extension)')
    parser.add_argument('--arch', nargs='+', default=['sm_80', 'sm_90'])
    return parser.parse_args()


def show_kernels(arch, kernels):
    print(f'\n{arch}: main loops of the tiled kernels')
    print(f'{"kernel":44}{"loop":>6}{"useful":>8}{"/term":>7}{"regs":>6}'
          f'{"shared":>8}{"local":>7}')
    for k in sorted(kernels, key=lambda k: k.tiled):
        t = k.tiled
        name = (f'{t.op} {t.form} {t.dtype}{" pairs" if t.half_pairs else ""} '
                f'{t.rows}x{t.pixels}x{t.depth}'
                f'{"" if t.whole_taps else " general"}')
        print(f'{name:44}{len(k.loop):6}{k.loop.useful_share:8.1%}'
              f'{len(k.loop) / t.terms:7.2f}{k.registers:6}'
              f'{k.shared_bytes:8}{k.local:7}')


def show_times(gpu, kernels):
    loops = {(k.tiled.op, k.tiled.rows):
             (len(k.loop) / k.tiled.terms, k.loop.useful / k.tiled.terms)
             for k in kernels
             if k.tiled.whole_taps and k.tiled.dtype == 'float32'
             and k.tiled.form != 'sign'}
    for name, (images, layers) in WORK.items():
        times = cuda_time.seconds(layers, images, gpu, loops)
        parts = ', '.join(f'{op} {s:.0f}' for op, s in times.items())
        print(f'{gpu.name}, calculated seconds per epoch of {name}: {parts}; '
              f'together {sum(times.values()):.0f}')


def main():
    args = parse_args()
    if args.file:
        require_file(args.file, '--file')
    elif not BINARY.exists():
        raise InputError(
            'mmadder is not built, and no --file was given; build it with '
            '`MMADDER_CUDA=1 pip install -e . --no-build-isolation`')
    binary = args.file or BINARY
    for arch in args.arch:
        kernels = [k for k in sass.read_kernels(binary, arch) if k.tiled]
        if not kernels:
            print(f'{arch}: no tiled kernels in {binary}')
            continue
        show_kernels(arch, kernels)
        for gpu in cuda_time.GPUS:
            if gpu.arch == arch and not args.file:
                show_times(gpu, kernels)


if __name__ == '__main__':
    with cli.short_messages('Interrupted.'):
        main()
