# Licensed under a 3-clause BSD style license - see LICENSE.rst
"""Would a test notice?  Change one operator, comparison or number at a time and run the tests of a module.

    python benchmarks/mutation_check.py galshape_cnn/geometry.py galshape_cnn/tests/test_geometry.py

From the root of a clone; ``-k`` chooses tests and ``--lines`` the part to change.  Prints the changes that no
test noticed, and how many there were.  Each runs in a child of a process that has imported the libraries
already, which is what makes hundreds of them affordable.  Linux and macOS.
"""

import argparse
import ast
import copy
import os
import signal
import sys
import types
import warnings
from pathlib import Path

OTHER = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.Pow: ast.Mult, ast.MatMult: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.And: ast.Or, ast.Or: ast.And,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip

LIBRARIES = ("pytest", "hypothesis", "astropy.table", "astropy.modeling.fitting", "galsim", "jax.numpy")


def change(node):
    """Change a node in place; False if there is nothing to change."""
    if isinstance(node, ast.BinOp | ast.BoolOp) and type(node.op) in OTHER:
        node.op = OTHER[type(node.op)]()
    elif isinstance(node, ast.Compare) and type(node.ops[0]) in OTHER:
        node.ops[0] = OTHER[type(node.ops[0])]()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.Not):
        node.op = ast.UAdd()  # of what 'not' stood before, that is its own truth
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        node.value = not node.value
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        node.value += 1
    else:
        return False
    return True


def changes(source):
    """Line, text before, text after and the whole changed source, for each possible change."""
    tree = ast.parse(source)
    for number, node in enumerate(ast.walk(tree)):
        if not change(copy.deepcopy(node)):
            continue
        changed = copy.deepcopy(tree)
        twin = next(other for index, other in enumerate(ast.walk(changed)) if index == number)
        before = ast.unparse(twin)
        change(twin)
        yield node.lineno, before, ast.unparse(twin), ast.unparse(ast.fix_missing_locations(changed))


def noticed(path, source, arguments, limit, silent=True):
    """Run the tests in a child in which the module has another source."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0
    signal.alarm(limit)  # a change that never ends is noticed
    if silent:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
    name = ".".join(path.with_suffix("").parts)
    module = types.ModuleType(name)
    module.__file__, module.__package__ = str(path.resolve()), name.rpartition(".")[0]
    sys.modules[name] = module
    status = 1
    try:
        exec(compile(source, module.__file__, "exec"), vars(module))
        import pytest

        warning = "ignore::pytest.PytestAssertRewriteWarning"  # the parent has imported Hypothesis
        status = pytest.main([*arguments, "-x", "-q", "-p", "no:cacheprovider", "-W", warning])
    finally:
        os._exit(int(status))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("module", type=Path)
    parser.add_argument("tests", nargs="+")
    parser.add_argument("-k", help="only the tests that pytest -k chooses")
    parser.add_argument("--lines", nargs=2, type=int, default=(1, 10**6), help="first and last line")
    parser.add_argument("--every", type=int, default=1, help="try every so-many-th change")
    parser.add_argument("--limit", type=int, default=600, help="seconds for the tests of one change")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # JAX warns of forks; its threads have not started
    sys.path.insert(0, os.getcwd())
    for library in LIBRARIES:
        __import__(library)
    source, arguments = args.module.read_text(), [*args.tests, *(["-k", args.k] if args.k else [])]
    if noticed(args.module, source, arguments, args.limit, silent=False):
        parser.error("the tests fail without any change")
    chosen = [one for one in changes(source) if args.lines[0] <= one[0] <= args.lines[1]][:: args.every]
    missed = 0
    for line, before, after, changed in chosen:
        if not noticed(args.module, changed, arguments, args.limit):
            missed += 1
            print(f"{args.module}:{line}: {before}  ->  {after}", flush=True)
    print(f"{args.module}: {len(chosen)} changes, {len(chosen) - missed} noticed, {missed} not")


if __name__ == "__main__":
    main()
