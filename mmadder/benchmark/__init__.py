"""How fast the operators and models are beside what one would else use.

`tools/benchmark.py` is the command line. Nothing here is imported with the
package.
"""
