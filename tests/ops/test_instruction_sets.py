"""One binary for every processor: dispatch, and no illegal instruction."""
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNITS = sorted(ROOT.glob('mmadder/csrc/cpu/kernels_*.cpp'))
# Units for any x86-64; each other unit's instructions stay in that unit.
BASELINE = {'kernels_portable.cpp'}
X86 = os.uname().machine == 'x86_64'


def run_python(*arguments, isa=None, prefix=()):
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(
        path for path in sys.path if path))
    environment.pop('MMADDER_CPU_ISA', None)
    if isa:
        environment['MMADDER_CPU_ISA'] = isa
    return subprocess.run(
        [*prefix, sys.executable, *arguments], env=environment,
        capture_output=True, text=True)


def extension_path():
    return importlib.util.find_spec('mmadder._C').origin


# Without the package, whose other parts take minutes to import in qemu.
CALL = '''
import sys, torch
torch.ops.load_library(sys.argv[1])
x, w = torch.arange(9.).view(1, 1, 3, 3), torch.ones(1, 1, 2, 2)
print(torch.ops.mmadder.adder_conv2d(
    x, w, (1, 1), (0, 0), (1, 1), 1, 'exact', 'hardtanh').flatten().tolist())
'''
ANSWER = '[-6.0, -8.0, -16.0, -20.0]'


def supported(isa='none', prefix=()):
    """Names of the kernels that run here, best first, from the error."""
    message = run_python(
        '-c', CALL, extension_path(), isa=isa, prefix=prefix).stderr
    found = re.search(
        rf'MMADDER_CPU_ISA={isa} is not supported here; this processor '
        r'runs: ([\w, ]+)', message)
    assert found, message
    return found[1].split(', ')


@pytest.fixture(scope='session')
def isas():
    return supported()


def test_each_unit_has_a_name(isas):
    known = {unit.stem.partition('_')[2] for unit in UNITS}
    assert set(isas) <= known and isas[-1] == 'portable'


@pytest.mark.parametrize('unit', UNITS, ids=lambda unit: unit.stem)
def test_kernels_by_request(unit, isas):
    """The random geometries and edge values again, with this table."""
    isa = unit.stem.partition('_')[2]
    if isa not in isas:
        pytest.skip(f'this processor does not run {isa}')
    if isa == os.environ.get('MMADDER_CPU_ISA', isas[0]):
        pytest.skip(f'{isa} kernels run in this process')
    folder = Path(__file__).parent
    result = run_python(
        '-m', 'pytest', '-q', '-x', '-c', ROOT / 'pyproject.toml',
        '--hypothesis-profile=few', folder / 'test_random_geometries.py',
        folder / 'test_edge_values.py', isa=isa)
    assert result.returncode == 0, result.stdout[-4000:]


# ------------------------------------------------------------ disassembly --


def need(*tools):
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f'{tool} was not found (apt-get install binutils)')
    if not X86:
        pytest.skip('x86-64 only')


# Beyond x86-64 as of 2003, which every 64-bit processor runs: the AVX
# families (all begin with v), mask registers, and BMI, ADX, SSE3 to SSE4.2.
EXTENDED = re.compile(
    r'v(?!err|erw|mcall|mlaunch|mresume)\w+|k(?:mov|and|andn|or|xor|xnor|not|'
    r'ortest|test|add|shift[lr]|unpck)\w*|'
    r'andn|bextr|bls[ir]|blsmsk|bzhi|mulx|pdep|pext|rorx|s[ah]rx|shlx|'
    r'lzcnt|tzcnt|popcnt|movbe|adcx|adox|crc32\w*|'
    r'addsubp[sd]|h(?:add|sub)p[sd]|lddqu|movddup|movs[hl]dup|'
    r'pabs[bwd]|palignr|ph(?:add|sub)\w+|pmaddubsw|pmulhrsw|pshufb|'
    r'psign[bwd]|blendv?p[sd]|dpp[sd]|extractps|insertps|movntdqa|mpsadbw|'
    r'packusdw|pblend\w+|pcmp(?:eqq|gtq|[ei]str[im])|p(?:ext|ins)r[bdq]|'
    r'p(?:max|min)(?:sb|sd|ud|uw)|pmov[sz]x\w+|pmul(?:dq|ld)|ptest|'
    r'rounds?[ps][sd]')
INSTRUCTION = re.compile(r'^\s*[0-9a-f]+:\s+(?:(?:lock|rep\w*|bnd|notrack|'
                         r'data16|cs|ds|es|fs|gs)\s+)*(\w+)')


def functions_with_extensions(binary):
    """{address of a function: first instruction beyond the baseline}."""
    listing = subprocess.run(
        ['objdump', '-d', '--no-show-raw-insn', binary], check=True,
        capture_output=True, text=True).stdout
    found, address = {}, None
    for line in listing.splitlines():
        heading = re.match(r'([0-9a-f]+) <.*>:$', line)
        if heading:
            address = int(heading[1], 16)
            continue
        instruction = INSTRUCTION.match(line)
        if instruction and EXTENDED.fullmatch(instruction[1]):
            found.setdefault(address, line.strip())
    return found


def functions_by_unit(binary):
    """{address: (source file or None, name)} of all functions.

    A symbol table lists local symbols behind the name of their file; hidden
    ones, which the linker makes local, come last and name none.
    """
    listing = subprocess.run(
        ['readelf', '-sW', '-C', binary], check=True, capture_output=True,
        text=True).stdout
    functions, unit = {}, None
    symbol = re.compile(r'\s*\d+: ([0-9a-f]+)\s+\w+ (\w+)\s+(\w+)\s+\w+\s+'
                        r'\w+ ?(.*)')
    for line in listing[listing.index("'.symtab'"):].splitlines():
        match = symbol.match(line)
        if match is None:
            continue
        address, kind, binding, name = match.groups()
        if kind == 'FILE':
            unit = name or None
        elif kind in ('FUNC', 'NOTYPE') and int(address, 16):
            functions[int(address, 16)] = (
                unit if binding == 'LOCAL' else None, name)
    return functions


def test_extended_instructions_stay_in_their_units():
    need('objdump', 'readelf')
    binary = extension_path()
    functions = functions_by_unit(binary)
    allowed = {unit.name for unit in UNITS} - BASELINE
    extended = functions_with_extensions(binary)
    assert extended, 'the check looks for the wrong thing'
    strays = []
    for address, instruction in extended.items():
        unit, name = functions.get(address, (None, hex(address)))
        entry = re.fullmatch(r'mmadder::cpu::(\w+)_kernels\(\).*', name)
        owner = f'kernels_{entry[1]}.cpp' if entry else unit
        if owner not in allowed:
            strays.append(f'{name} in {owner}: {instruction}')
    assert not strays, '\n'.join(strays)


@pytest.mark.parametrize('unit', UNITS, ids=lambda unit: unit.stem)
def test_units_share_nothing(unit, tmp_path):
    """Each gives the linker one function, everything else is its own.

    A template or an inline function of a header would be a weak symbol: the
    linker keeps one copy for all units, perhaps the one with instructions
    that this processor lacks.
    """
    compiler = os.environ.get('CXX', 'g++')
    need(compiler, 'nm')
    target = tmp_path / 'unit.o'
    # Unoptimized: what inlining would hide shows as well.
    subprocess.run([compiler, '-c', '-O0', '-std=c++17', '-fPIC', '-w', unit,
                    '-o', target], check=True)
    listing = subprocess.run(
        ['nm', '-C', target], check=True, capture_output=True,
        text=True).stdout
    symbols = re.findall(r'^[0-9a-f ]{16} (\w) (.*)', listing, re.M)
    # Local ones have small letters; DW.ref.* are pointers of the exception
    # tables, and what is undefined comes from elsewhere, hence for any x86-64.
    shared = [name for kind, name in symbols if kind in 'ABCDGRSTVWuvwi'
              and not name.startswith('DW.ref.')]
    assert shared == [f'mmadder::cpu::{unit.stem.partition("_")[2]}_kernels()']
