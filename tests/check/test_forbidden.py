"""What the source never does: draw from a global generator, run code that it read, print, reach for the network."""

import ast
import re
from collections.abc import Iterator

from tests.check.tree import Module, calls, calls_in, dotted, modules

_SEEDED = {"default_rng", "Generator", "SeedSequence", "Philox", "PCG64", "Random"}  # generators of their own
_DRAWS = {"rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal", "rand_like", "randn_like"}
_FILLS = {"normal_", "uniform_", "bernoulli_", "trunc_normal_", "random_", "exponential_", "log_normal_", "cauchy_"}
_GLOBAL = {"torch.manual_seed", "torch.seed", "torch.cuda.manual_seed_all", "torch.set_rng_state", "np.random.seed"}
_LOADERS = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
_RUNNERS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
_RUNNERS |= {"torch.load", "torch.hub.load", "yaml.load"}
_SWITCHES = {"shell", "allow_pickle", "trust_remote_code"}
_PRINTERS = {"cli", "serve.chat"}
_LESSONS = "learn.lessons."  # scripts that show what they compute


def _found(pattern: str, found: Iterator[str]) -> None:
    listed = list(found)
    assert not listed, f"{pattern}:\n" + "\n".join(listed)


def test_no_global_randomness() -> None:
    _found("draws from a global generator", (at for module in modules() for at in _global_draws(module)))


def _global_draws(module: Module) -> Iterator[str]:
    for call in calls_in(module.tree):
        name, last = dotted(call.func), dotted(call.func).rpartition(".")[2]
        own = any(keyword.arg == "generator" for keyword in call.keywords)
        drawn = re.match(r"(np\.|numpy\.)?random\.", name) and last not in _SEEDED
        filled = (last in _DRAWS and name.startswith("torch.")) or last in _FILLS
        if name in _GLOBAL or drawn or (filled and not own) or re.fullmatch(r"(F|nn)\..*[dD]ropout", name):
            yield f"{module.at(call)}: {ast.unparse(call)[:90]}"


def test_nothing_read_is_ever_run() -> None:
    _found("runs or unpickles what it reads", (at for module in modules() for at in _runs(module)))


def _runs(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        loads = _LOADERS & {name.split(".")[0] for name in names}
        if loads or (isinstance(node, ast.Call) and _risky(node)):
            yield f"{module.at(node)}: {ast.unparse(node)[:90]}"


def _risky(call: ast.Call) -> bool:
    """eval(...), torch.load(...), archive.extractall(...), run(..., shell=True), np.load(..., allow_pickle=True)."""
    name = dotted(call.func)
    switched = [k for k in call.keywords if k.arg in _SWITCHES and not _is_false(k.value)]
    return name in _RUNNERS or name.endswith(".extractall") or bool(switched)


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


def test_only_the_command_prints() -> None:
    _found(
        "prints",
        (
            module.at(call)
            for module, call in calls("print")
            if module.name not in _PRINTERS and not module.name.startswith(_LESSONS)
        ),
    )


def test_the_checks_see_what_they_forbid() -> None:
    draws = _module("random.random()", "torch.rand(3)", "x.normal_()", "np.random.rand(2)", "F.dropout(x)")
    assert len(list(_global_draws(draws))) == 5
    runs = _module("import pickle", "exec('1')", "run('ls', shell=True)", "z.extractall()", "torch.load('x')")
    assert len(list(_runs(runs))) == 5
    fine = _module("torch.rand(3, generator=g)", "np.random.default_rng(1)", "net.eval()", "run('ls', shell=False)")
    assert [*_global_draws(fine), *_runs(fine)] == []


def _module(*lines: str) -> Module:
    return Module(modules()[0].path, "written here", ast.parse("\n".join(lines)))
