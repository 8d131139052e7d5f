"""Fully sharded training (FSDP2): each rank holds its rows of every weight, its gradient and its optimizer state.

torch gathers the weights of a block before it runs and scatters its gradients behind it. What is ours stays what it is
on one rank: the fp32 masters are the rows themselves, and the optimizers update them as plain tensors. Two things need
more than its own rows: the norm of the gradient, and Muon, whose matrices are handed whole to one rank each.
"""

import copy
import math
import warnings
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.distributed.checkpoint.api
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard

from danlu import files, ranks
from danlu.config import Train
from danlu.tasks.task import Task
from danlu.train import checkpoint, optim
from danlu.train.checkpoint import Checkpoint, Named
from danlu.train.distributed import Replicas
from danlu.train.precision import Late, Masters

_WRITER = ThreadPoolExecutor(1, "danlu-checkpoint")  # one save at a time


class Sharded(Replicas):
    """The ranks of a training in which each holds a part of some weights, as `places` says."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.rank, self.count = ranks.rank(), ranks.count()
        self.mesh = init_device_mesh("cpu", (self.count,))
        self.shapes: dict[str, torch.Size] = {}
        self.places: dict[str, Shard] = {}
        self.beside = dist.new_group(backend="gloo")  # what passes while a checkpoint is written meets no step's sums
        self.writing: Future[None] | None = None

    def masters(self, net: nn.Module, dtype: torch.dtype) -> Masters:
        shard(net, self.mesh, dtype)
        self.note(net)
        return Shards(net)

    def note(self, net: nn.Module) -> None:
        """Remember which weights are shared out, and how."""
        parts = {name: p for name, p in net.named_parameters() if isinstance(p, DTensor)}
        self.shapes = {name: p.shape for name, p in parts.items()}
        self.places = {name: p.placements[0] for name, p in parts.items()}  # type: ignore[misc]

    def reduce(self, gradients: Iterable[Tensor]) -> None:
        """They are: each rank holds the sums of its part."""

    def clip(self, gradients: Named, limit: float) -> float:
        shared = [g for name, g in gradients.items() if name in self.places]
        common = [g for name, g in gradients.items() if name not in self.places]
        square = _square(shared)
        dist.all_reduce(square)
        norm = float((square + _square(common)).sqrt())
        if limit and norm > limit:
            torch._foreach_mul_([*shared, *common], limit / norm)
        return norm

    def optimizer(self, name: str) -> type[optim.Optimizer]:
        return ShardedMuon if name == "muon" else super().optimizer(name)

    def whole(self, weights: Named) -> Named:
        """The whole weights, from the rows of all ranks."""
        spread = {name: self._spread(name, tensor) for name, tensor in weights.items()}
        return {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in spread.items()}

    # --- checkpoints: every rank writes its rows into the one staged folder, every rank reads its own --------

    def save(self, root: Path, state: Checkpoint, keep: frozenset[int]) -> None:
        """Begin to write a copy of the state beside the training; `settle` waits for it."""
        state = _copied(state)
        self.writing = _WRITER.submit(self._save, root, state, self._spread_all(state), keep)

    def settle(self) -> None:
        writing, self.writing = self.writing, None
        if writing is not None:
            writing.result()

    def _save(self, root: Path, state: Checkpoint, tensors: Named, keep: frozenset[int]) -> None:
        """Rank 0 makes and seals the folder, all write into it; for none it is done before it is in place."""
        begun = False

        def write(out: Path, _: object = None) -> None:
            nonlocal begun
            begun = True
            if self._every(True):  # the folder is there
                writer = dcp.HuggingFaceStorageWriter(str(out), save_distributed=True)
                dcp.save(tensors, storage_writer=writer, process_group=self.beside)

        try:
            if self.rank == 0:
                checkpoint.save(root, state, keep=keep, write=write)
            else:
                write(checkpoint.staging_of(root, state.position.step))
        except dcp.api.CheckpointException as failed:
            raise _refused(root, failed) from failed
        finally:
            if not begun:
                self._every(False)
            dist.barrier(self.beside)

    def _every(self, ready: bool) -> bool:
        """Whether all ranks are ready to write."""
        said = torch.tensor(float(ready))
        dist.all_reduce(said, dist.ReduceOp.MIN, self.beside)
        return bool(said)

    def read(self, root: Path, step: int) -> Checkpoint | None:
        self.settle()
        saved = checkpoint.at(root, step)
        if saved is None:
            return None
        best = None if saved.best is None else self._own(saved.best)
        return Checkpoint(saved.position, self._own(saved.weights), self._own(saved.optimizer), best)

    def _own(self, whole: Mapping[str, Tensor]) -> Named:
        """This rank's part of whole tensors."""
        places = {name: self.places.get(_plain(name)) for name in whole}
        return {name: tensor if (place := places[name]) is None else _part(tensor, place.dim, self.rank, self.count)
                for name, tensor in whole.items()}  # fmt: skip

    def _spread_all(self, state: Checkpoint) -> Named:
        parts = {"weights": state.weights, "optimizer": state.optimizer, "best": state.best or {}}
        return {f"{part}/{name}": self._spread(name, t) for part, named in parts.items() for name, t in named.items()}

    def _spread(self, name: str, part: Tensor) -> Tensor:
        """The parts of all ranks as one tensor of torch's; what every rank holds whole is what it is."""
        if (name := _plain(name)) not in self.places:
            return part
        shape, place = self.shapes[name], [self.places[name]]
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(part, self.mesh, place, run_check=False, shape=shape, stride=stride)


def _refused(root: Path, failed: dcp.api.CheckpointException) -> BaseException:
    """What the operating system refused one of the ranks, for the user."""
    errors = (error for error, _ in failed.failures.values())
    return next((files.refusal(root, each) for each in errors if isinstance(each, OSError)), failed)


def _copied(state: Checkpoint) -> Checkpoint:
    """The state as it is now, while steps go on to change it; the best weights are never changed, only replaced."""
    weights, optimizer = ({name: t.clone() for name, t in named.items()} for named in (state.weights, state.optimizer))
    return Checkpoint(copy.deepcopy(state.position), weights, optimizer, state.best)


def _plain(name: str) -> str:
    """The parameter's name in that of its optimizer state, "part/slot/name"."""
    return name.rpartition("/")[2]


def _part(tensor: Tensor, dim: int, rank: int, count: int) -> Tensor:
    """The part of a rank as torch shares out: all parts of one size, the last ones smaller or empty."""
    size = math.ceil(tensor.shape[dim] / count)
    start = min(size * rank, tensor.shape[dim])
    return tensor.narrow(dim, start, min(size, tensor.shape[dim] - start))


def _square(tensors: list[Tensor]) -> Tensor:
    """The sum of the squares of all values."""
    return torch.stack(torch._foreach_norm(tensors)).square().sum() if tensors else torch.zeros(())


def shard(net: nn.Module, mesh: DeviceMesh, dtype: torch.dtype) -> None:
    """Shard a network: each block for itself, then what is left. Products are computed in `dtype`, sums in fp32."""
    lowered = dtype if dtype != torch.float32 else None
    policy = MixedPrecisionPolicy(param_dtype=lowered, reduce_dtype=torch.float32 if lowered else None,
                                  cast_forward_inputs=False)  # fmt: skip
    for part in (*getattr(getattr(net, "core", None), "blocks", ()), net):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    for module in net.modules():
        if isinstance(module, FSDPModule):  # our losses are divided by the counts of all ranks: gradients are summed
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    register_fsdp_forward_method(net, "hidden")
    warnings.filterwarnings("ignore", "FSDP2-wrapped module")  # of changes in place, which no layer of ours makes


class Shards(Late):
    """The rows of this rank: views of what torch holds, so that an update is in the network at once."""

    def __init__(self, net: nn.Module):
        self.net = net
        named = dict(net.named_parameters())
        self.working = {name: p for name, p in named.items() if p.requires_grad}
        self.params = {name: local(p.detach()) for name, p in self.working.items()}
        self.frozen, self._lowered = {}, []
        self.gradients: dict[str, Tensor] = {}

    def wake(self, names: Collection[str]) -> None:
        """All learn: what passes between the ranks is fixed. The gradients of what sleeps are let lie."""

    def collect(self) -> None:
        for name, p in self.working.items():
            if p.grad is None:
                continue
            rows = local(p.grad)
            self.gradients[name] = self.gradients[name].add_(rows) if name in self.gradients else rows.clone()
            p.grad = None

    def publish(self) -> None:
        """Let go of what is gathered: it is of before the update."""
        self.net.reshard()  # type: ignore[operator]

    def restored(self, net: nn.Module) -> dict[str, Tensor]:
        """This rank's rows of the network's complete state."""
        return {name: local(tensor).detach() for name, tensor in net.state_dict().items()}


def local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class ShardedMuon(optim.Muon):
    """Muon where each rank holds some rows: of equal matrices, each rank gets its share whole, and gives rows back.

    So a matrix is orthogonalised once, by one rank, as on one rank; what passes is twice its own size.
    """

    def __init__(self, params: Named, train: Train, decay: float, dtype: torch.dtype = torch.float32, block: int = 0):
        super().__init__(params, train, decay, dtype, block)
        rows = torch.tensor([len(p) for p in self.params.values()])
        dist.all_reduce(rows)
        columns = [shape[1] for shape in self.shapes]
        self.shapes = [torch.Size((int(n), width)) for n, width in zip(rows, columns, strict=True)]

    def directions(self, matrices: list[Tensor], shape: torch.Size) -> list[Tensor]:
        count, (whole, columns) = dist.get_world_size(), shape
        rows = math.ceil(whole / count)
        each = math.ceil(len(matrices) / count)  # matrices of one rank
        sent = matrices[0].new_zeros(count * each, rows, columns)
        for i, matrix in enumerate(matrices):
            sent[i, : len(matrix)] = matrix
        mine = _exchanged(sent.view(count, each, rows, columns)).transpose(0, 1).reshape(each, -1, columns)
        mine[:, :whole] = torch.stack(super().directions(list(mine[:, :whole]), shape))
        back = _exchanged(mine.view(each, count, rows, columns).transpose(0, 1)).reshape(-1, rows, columns)
        return [back[i, : len(matrix)] for i, matrix in enumerate(matrices)]


def _exchanged(sent: Tensor) -> Tensor:
    """sent[r] goes to rank r; what came from rank r stands at [r]."""
    sent = sent.contiguous()
    got = torch.empty_like(sent)
    dist.all_to_all_single(got, sent)
    return got
