"""Networks of integers: their file, and three ways to run one."""
from .c_program import CProgram, write_c_program
from .native import NativeNetwork
from .network import IntegerNetwork

__all__ = ['CProgram', 'IntegerNetwork', 'NativeNetwork', 'write_c_program']
