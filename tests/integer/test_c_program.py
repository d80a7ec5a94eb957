"""The generated C program against the reference, byte by byte."""
import os
import resource
import shutil
import signal
import subprocess

import pytest
from random_networks import (
    SIZE,
    Builder,
    classifier,
    extremes,
    long_sums,
    lopsided,
    one_weight,
    pictures,
    pyramid,
    shift_only,
)

from mmadder.errors import InputError
from mmadder.integer import integer_reference
from mmadder.integer.c_program import (
    LONGEST_STRING,
    channel_order,
    write_c_program,
)

STRICT = ('-std=c99', '-Wall', '-Wextra', '-Werror', '-pedantic')
COMPILERS = [name for name in ('gcc', 'clang') if shutil.which(name)]
pytestmark = pytest.mark.skipif(not COMPILERS, reason='no C compiler')


def compiled(network, folder, size=SIZE, *options, compiler=None):
    """Write and compile a program; returns its path and its report."""
    report = write_c_program(network, folder, size)
    program = folder / 'network'
    done = subprocess.run(
        [compiler or COMPILERS[0], *STRICT, *(options or ('-O2', )),
         str(report.source), '-o', str(program)],
        capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return program, report


def call(program, *arguments, input=b'', code=0, **options):
    # ASan's leak check needs rights that containers do not give.
    done = subprocess.run(
        [str(program), *map(str, arguments)], input=input,
        capture_output=True, env=dict(os.environ,
                                      ASAN_OPTIONS='detect_leaks=0'),
        **options)
    assert done.returncode == code, done.stderr.decode()
    return (done.stdout if code == 0 else done.stderr).decode()


def check(network, program, images, maps=None):
    """That a program writes the reference's bytes."""
    if maps is None:
        maps = integer_reference.run(network, images)
    out = program.with_name('outputs.bin')
    for i, image in enumerate(images):
        text = call(program, '-', out, input=image.tobytes())
        expected = b''.join(maps[name][i].astype(
            maps[name].dtype.newbyteorder('<')).tobytes()
            for name in network.outputs.values())
        assert out.read_bytes() == expected
    return text


@pytest.mark.parametrize('compiler', COMPILERS)
@pytest.mark.parametrize('make, options', [
    (classifier, {}), (classifier, dict(seed=1, center=False, highest=63)),
    (classifier, dict(seed=2, shift_only=True, highest=15)), (lopsided, {}),
    (pyramid, {}), (pyramid, dict(seed=1, center=False, highest=15))])
def test_every_byte(compiler, make, options, tmp_path):
    network = make(**options)
    program, _ = compiled(network, tmp_path, compiler=compiler)
    check(network, program, pictures(
        channels=network.maps['image']['channels']))


def test_a_real_picture(scene, tmp_path):
    network, image, maps = scene
    program, _ = compiled(network, tmp_path, image.shape[2:])
    check(network, program, image, maps)


@pytest.mark.parametrize('highest', [255, 15])
def test_numbers_at_their_limits(highest, tmp_path):
    network = extremes(highest)
    program, _ = compiled(network, tmp_path)
    check(network, program, pictures())


def test_long_sums(tmp_path):
    """Filters that are several strings; sums of 30 bits, of 31 centered."""
    network = long_sums()
    assert network.arrays['map_2/weight'][0].size > 7 * LONGEST_STRING
    program, _ = compiled(network, tmp_path, (3, 3))
    check(network, program, pictures(1, (3, 3)))


def test_a_weight_of_two_layers(tmp_path):
    network = one_weight()
    program, report = compiled(network, tmp_path)
    assert report.header.read_text().count('_weight[') == 2
    check(network, program, pictures())


@pytest.mark.parametrize('make', [extremes, pyramid, lopsided])
def test_nothing_undefined(make, tmp_path):
    options = '-O1', '-fsanitize=undefined,address', \
        '-fno-sanitize-recover=all'
    (tmp_path / 'empty.c').write_text('int main(void) { return 0; }\n')
    if subprocess.run([COMPILERS[0], *options, str(tmp_path / 'empty.c'),
                       '-o', str(tmp_path / 'empty')],
                      capture_output=True).returncode:
        pytest.skip('the compiler has no sanitizers')
    network = make()
    program, _ = compiled(network, tmp_path, SIZE, *options)
    channels = network.maps['image']['channels']
    check(network, program, pictures(1, channels=channels))


def test_shifts_alone(tmp_path):
    """Powers of two of all sizes, those that shift to the left among them."""
    network = shift_only()
    names = [step['output'] for step in network.steps
             if step['kind'] == 'adder']
    for name in names[1::2]:
        network.arrays[f'{name}/multiplier'][:6] = (
            0, -2**31, 2**30, 1, -1, 2**29)
    network.steps[4]['shift'] = 1
    network.steps[5]['shift'] = 30
    program, report = compiled(network, tmp_path)
    assert report.multipliers == dict.fromkeys(names, 0)
    assert 'none of them with multipliers' in str(report)
    assert '#define ADDER_PRODUCTS 0\n' in report.source.read_text()
    check(network, program, pictures())


def test_multipliers_that_are_left(tmp_path):
    network = shift_only(width=12)
    adders = [step for step in network.steps if step['kind'] == 'adder']
    adders[1]['residual_multiplier'] = 3
    network.arrays[adders[0]['output'] + '/multiplier'][5] = 3
    program, report = compiled(network, tmp_path)
    # All of a layer's filters, its residual; 12 filters to center.
    assert list(report.multipliers.values()) == [8, 8, 12, 12, 12]
    assert f"{adders[0]['output']}: 8 multiplications" in str(report)
    check(network, program, pictures())


def test_outputs_of_any_name(tmp_path):
    """One map twice, names that C has not, a step that nobody needs."""
    b = Builder()
    x = b.convolution('image', 4)
    b.adder(x, 5)
    y = b.convolution(x, 4, accumulate=True)
    b.outputs.update({'for': x, 'a b': x, 'a_b': y, '0"\\ü': y})
    network = b.build()
    program, report = compiled(network, tmp_path)
    text = check(network, program, pictures())
    assert '0"\\ü: int32 (4, 29, 41)' in text
    assert not report.multipliers


def test_a_network_without_maps(tmp_path):
    b = Builder()
    b.output(b.convolution('image', 4, accumulate=True))
    program, report = compiled(b.build(), tmp_path)
    assert report.map_bytes == 0
    check(b.build(), program, pictures())


def named(classes=('a', 'b "c" ??/', 'zwölf'), **model):
    b = Builder()
    x = b.average(b.convolution('image', 4, zero_point=0))
    x = b.convolution(x, 3, kernel=(1, 1), padding=(0, 0), accumulate=True)
    b.outputs['logits'] = x
    b.maps[x]['scale'] = [0.001, 2., 0.0001]
    b.arrays[f'{x}/weight'][:] = 0
    b.arrays[f'{x}/bias'][:] = 900, 5, 2000  # 0.9, 10 and 0.2
    return b.build(classes=classes and list(classes), **model)


@pytest.mark.parametrize('classes, name', [
    (('a', 'b "c" ??/', 'zwölf'), ', b "c" ??/'), (None, ''), (('a', ), '')])
def test_the_best_class(classes, name, tmp_path):
    network = named(classes)
    program, report = compiled(network, tmp_path)
    text = call(program, '-', input=pictures()[0].tobytes())
    assert text.endswith(f'logits: int32 (3, 1, 1)\nbest class: 1{name} '
                         '(10)\n')
    assert text.startswith(f'memory: {report.map_bytes} bytes of maps, '
                           f'{report.work_bytes} of work')
    assert f'{report.map_bytes} bytes of maps' in str(report)


@pytest.mark.parametrize('model, order', [
    ({}, 'RGB'), (dict(channel_order='BGR'), 'BGR')])
def test_ppm(model, order, tmp_path):
    network = pyramid()
    network.model.update(model)
    program, _ = compiled(network, tmp_path)
    image = pictures()[0]
    rgb = image if order == 'RGB' else image[::-1]
    pixels = rgb.transpose(1, 2, 0).tobytes()
    for i, head in enumerate((b'P6\n41 29\n255\n',
                              b'P6 # of a\n#b\n 41\t29 #c\n\n255 ')):
        path = tmp_path / f'{i}.ppm'
        path.write_bytes(head + pixels)
        outputs = tmp_path / f'{i}.bin'
        call(program, path, outputs)
        call(program, '-', tmp_path / 'planes.bin', input=image.tobytes())
        assert outputs.read_bytes() == \
            (tmp_path / 'planes.bin').read_bytes() != b''


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    return compiled(named(), tmp_path_factory.mktemp('small'))[0]


@pytest.mark.parametrize('content, message', [
    (b'P5 41 29 255 ', 'no binary PPM'), (b'', 'no binary PPM'),
    (b'P6 41 x 255 ', 'head of this PPM is damaged'),
    (b'P6 41 99999999999999 255 ', 'head of this PPM is damaged'),
    (b'P6 #', 'head of this PPM is damaged'),
    (b'P6 29 41 255 ', '29 wide and 41 high, the program takes 41 and 29'),
    (b'P6 41 29 65535 ', 'does not go from 0 to 255'),
    (b'P6 41 29 255 ' + bytes(41 * 29 * 3 - 1), 'before its last pixel')])
def test_a_picture_that_is_none(small, content, message, tmp_path):
    path = tmp_path / 'a.ppm'
    path.write_bytes(content)
    text = call(small, path, tmp_path / 'out.bin', code=1)
    assert message in text and text.startswith(str(path))
    assert not (tmp_path / 'out.bin').exists()


def test_arguments_of_the_program(small, tmp_path):
    image = pictures()[0].tobytes()
    assert 'planes (3, 29, 41)' in call(small, code=2)
    assert 'usage' in call(small, 'a', 'b', 'c', code=2)
    assert 'No such file' in call(small, tmp_path / 'none.ppm', code=1)
    assert 'ends before' in call(small, '-', input=image[:-1], code=1)
    assert 'goes on' in call(small, '-', input=image + b'a', code=1)
    assert 'No such file' in call(small, '-', tmp_path / 'none' / 'out.bin',
                                  input=image, code=1)


def test_a_full_disk(small, tmp_path):
    """Nothing is left half-written, and what is no file is not removed."""
    def limited():  # no file may grow beyond 10 bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    out = tmp_path / 'out.bin'
    (tmp_path / 'link.bin').symlink_to(out)
    for path in (out, tmp_path / 'link.bin'):
        text = call(small, '-', path, input=pictures()[0].tobytes(), code=1,
                    preexec_fn=limited)
        assert 'written to the end' in text
        assert out.read_bytes() == b''
    assert (tmp_path / 'link.bin').is_symlink()


def test_planes_of_other_channels(tmp_path):
    network = lopsided()
    program, _ = compiled(network, tmp_path)
    check(network, program, pictures(channels=2))
    assert 'three channels' in call(program, program, code=1)


def test_without_main(tmp_path):
    network = named()
    write_c_program(network, tmp_path, SIZE)
    (tmp_path / 'user.c').write_text('''
#include <stdio.h>
#include "network.h"
static uint8_t image[MMADDER_HEIGHT * MMADDER_WIDTH * MMADDER_CHANNELS];
static mmadder_outputs outputs;
int main(void) {
  if (mmadder_run(image, &outputs) != 0 || mmadder_run(NULL, &outputs) != -1) {
    return 1;
  }
  printf("%d %g", (int)outputs.logits[2][0][0], mmadder_logits_scale[1]);
  return 0;
}
''')
    subprocess.run(
        [COMPILERS[0], *STRICT, '-DMMADDER_NO_MAIN', 'network.c', 'user.c',
         '-o', 'user'], cwd=tmp_path, check=True)
    assert call(tmp_path / 'user') == '2000 2'


def test_a_size_that_does_not_fit(tmp_path):
    network = classifier()
    with pytest.raises(InputError, match='of one: give its size'):
        write_c_program(network, tmp_path)
    for size in ((0, 5), (5, 2**15 + 1), (5, ), (5, 5, 5)):
        with pytest.raises(InputError, match='size must be two numbers'):
            write_c_program(network, tmp_path, size)
    network.size = [40, 50]
    with pytest.raises(InputError, match=r'takes pictures of \(40, 50\) only'):
        write_c_program(network, tmp_path, (50, 40))
    write_c_program(network, tmp_path / 'new')
    assert '#define MMADDER_HEIGHT 40\n' in (
        tmp_path / 'new/network.h').read_text()
    network = lopsided()
    with pytest.raises(InputError, match='too small for map_1'):
        write_c_program(network, tmp_path, (1, 1))
    with pytest.raises(InputError, match='give a smaller size'):
        write_c_program(network, tmp_path, (2**15, 2**15))
    b = Builder()
    b.output(b.average(b.convolution('image', 1)))
    with pytest.raises(InputError, match='average of 1049600 positions'):
        write_c_program(b.build(), tmp_path, (1024, 1025))
    assert [path.name for path in tmp_path.iterdir()] == ['new']


def test_order_of_channels(tmp_path):
    for model, order in (
            ({}, 'RGB'), (dict(to_rgb=True), 'RGB'),
            (dict(to_rgb=False), 'BGR'),
            (dict(to_rgb=True, channel_order='BGR'), 'BGR')):
        assert channel_order(named(**model)) == order
    network = named(channel_order='GBR')
    with pytest.raises(InputError, match='GBR, expected RGB or BGR'):
        write_c_program(network, tmp_path, SIZE)
    assert not list(tmp_path.iterdir())


def test_both_files_or_none(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='is a file, expected a folder'):
        write_c_program(named(), tmp_path / 'file', SIZE)
    (tmp_path / 'network.c').mkdir()
    with pytest.raises(InputError, match='is a directory'):
        write_c_program(named(), tmp_path, SIZE)
    assert {path.name for path in tmp_path.iterdir()} == {'file', 'network.c'}
