"""The newest results as tables, between two marks of the READMEs and of the pages on scale. `--check` only compares.

python benchmarks/tables.py [--check]
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import results

ROOT = Path(__file__).parents[1]
READMES = {"en": ROOT / "README.md", "zh": ROOT / "README.zh.md"}
SCALES = {language: ROOT / "docs" / language / "explanation" / "scale.md" for language in READMES}
OPEN, CLOSE = "<!-- benchmarks: written by benchmarks/tables.py -->", "<!-- /benchmarks -->"
WORDS = {
    "en": {
        "step": "One training step, {weights:.1f}M weights, {tokens:,} tokens, ms",
        "default": "default environment", "tuned": "allocator tuned for all", "faster": "danlu is faster by",
        "memory": "peak memory, MB", "share": "share of bf16 peak",
        "quality": "tinyshakespeare by characters, cold start to validation loss", "wall": "seconds", "loss": "loss",
        "readme": "nanoGPT, its README's command for a CPU", "goal": "danlu to {goal}, worst of {seeds} seeds",
        "of": "of nanoGPT's time", "door": "Start and text", "help": "{name} --help, ms",
        "encode": "encode with {name}, MB/s", "us": "danlu",
        "plan": "`--plan` against the run", "said": "seconds, forecast", "took": "run", "size": "MB, forecast",
        "ranks": "processes", "one": "step", "parts": "of it computing + own memory + passing",
        "largest": "largest process", "foretold": "forecast",
        "ddp": "{ranks} replicas", "fsdp": "{ranks} sharded", "tensor": "{ranks} by heads",
        "saved": "a checkpoint of {ranks} sharded processes", "none": "none", "beside": "written beside the steps",
        "waited for": "waited for", "trained": "{steps} steps, s", "each": "one checkpoint adds, s",
        "minute": "of a minute",
        "tuned encoder": "A pretrained encoder (MiniLM, 22.7M weights) tuned to classes",
        "measured on": "accuracy on test rows",
        "each second": "examples a second", "peak": "MB at most",
        "side by side": "{set}, {side} ({seeds} seeds)", "as it comes": "{set}, {side}, each by its defaults",
        "relations": "semeval2010_task8 (macro-F1)", "lora": "danlu, LoRA",
        "pictures": "Training on pictures of 32 x 32, batches of 64", "pictures a second": "pictures a second",
        "precise": "{model}, {side}, both bf16", "usual": "{model}, {side}, each by its defaults",
        "growing": "danlu, growing pictures", "growing is": "with growing pictures",
        "resnet": "ResNet-18 (11.2M)", "vit": "ViT-tiny (5.4M)",
        "on": "{processor}, {threads} threads, torch {torch} ([results]({file}), [how]({how})).",
    },
    "zh": {
        "step": "一个训练步：{weights:.1f}M 个参数，{tokens:,} 个词元，毫秒",
        "default": "默认环境", "tuned": "各方同样调好分配器", "faster": "danlu 快几倍",
        "memory": "内存峰值，MB", "share": "占 bf16 峰值",
        "quality": "tinyshakespeare（按字符），冷启动到验证损失", "wall": "秒", "loss": "损失",
        "readme": "nanoGPT，其 README 的 CPU 命令", "goal": "danlu 到 {goal}，{seeds} 个种子中最差的",
        "of": "占 nanoGPT 用时", "door": "启动与文本", "help": "{name} --help，毫秒",
        "encode": "{name} 编码，MB/s", "us": "danlu",
        "ranks": "进程数", "one": "一步", "parts": "其中 计算 + 自身内存 + 通信",
        "largest": "最大的进程", "foretold": "预测",
        "ddp": "{ranks} 个副本", "fsdp": "{ranks} 个分片", "tensor": "{ranks} 个按头切分",
        "saved": "{ranks} 个分片进程的检查点", "none": "不存", "beside": "在训练之余写", "waited for": "停下来写",
        "trained": "{steps} 步，秒", "each": "每个检查点多用，秒", "minute": "占一分钟",
        "tuned encoder": "在分类上微调预训练编码器（MiniLM，22.7M 个参数）", "measured on": "测试集准确率",
        "each second": "每秒样本", "peak": "内存峰值 MB",
        "side by side": "{set}，{side}（{seeds} 个种子）", "as it comes": "{set}，{side}，各用自己的默认设置",
        "relations": "semeval2010_task8（宏平均 F1）", "lora": "danlu，LoRA",
        "pictures": "训练 32 x 32 的图片，每批 64 张", "pictures a second": "每秒图片",
        "growing": "danlu，图片逐步长大", "growing is": "图片逐步长大时",
        "precise": "{model}，{side}，同为 bf16", "usual": "{model}，{side}，各用自己的默认设置",
        "resnet": "ResNet-18（11.2M）", "vit": "ViT-tiny（5.4M）",
        "plan": "`--plan` 的预测与实际", "said": "秒，预测", "took": "实际", "size": "内存 MB，预测",
        "on": "{processor}，{threads} 线程，torch {torch}（[结果]({file})，[做法]({how})）。",
    },
}  # fmt: skip


def page(language: str) -> str:
    """All tables that have results."""
    words = WORDS[language]
    made = [table(words) for table in (_step, _quality, _transfer, _pictures, _door, _plan)]
    return "\n\n".join([text for text in made if text] + [_machine(words)])


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _step(words: dict[str, str]) -> str:
    found = results.newest("training_step")
    return "\n\n".join(_form(words, found, form) for form in ("gpt2", "qwen3") if f"{form}, default" in found)


def _form(words: dict[str, str], found: dict[str, Any], form: str) -> str:
    """One form: every side in both environments."""
    blocks = {name: found[f"{form}, {name}"] for name in ("default", "tuned") if f"{form}, {name}" in found}
    sides = blocks["default"]["sides"]
    weights = sides["danlu"]["weights"] / 1e6
    head = [words["step"].format(weights=weights, tokens=blocks["default"]["rows"] * 256) + f" ({form})"]
    for name in blocks:
        head += [words[name], words["faster"]]
    rows = []
    for side in sorted(sides, key=lambda side: sides[side]["milliseconds"]):
        row = [side]
        for block in blocks.values():
            row += _cells(block["sides"].get(side), side)
        rows.append([*row, f"{sides[side]['share_of_bf16_peak']:.0%}", f"{sides[side]['peak_mb']:,}"])
    return _table([*head, words["share"], words["memory"]], rows)


def _cells(side: dict[str, Any] | None, name: str) -> list[str]:
    if side is None:
        return ["—", "—"]
    ratio = "" if name.startswith("danlu") else f"{side['danlu_is_faster_by']:.2f}×"
    return [f"{side['milliseconds']:,.0f}", ratio]


def _quality(words: dict[str, str]) -> str:
    found = results.newest("time_to_quality")
    if not found:
        return ""
    peer = found.get("nanoGPT")
    rows = [[words["readme"], f"{peer['wall_seconds']:.0f}", f"{peer['worst_loss']:.3f}", ""]] if peer else []
    for goal in [name for name in found if re.fullmatch(r"\d\.\d+", name)]:
        row = found[goal]
        name = words["goal"].format(goal=goal, seeds=len(row["runs"]))
        worst = max(run["wall_seconds"] for run in row["runs"])
        same = peer and abs(peer["worst_loss"] - float(goal)) < 0.02  # nanoGPT ends where this goal is
        share = f"1/{peer['wall_seconds'] / worst:.1f}" if same else ""
        rows.append([name, f"{worst:.0f}", f"{row['worst_loss']:.3f}", share])
    return _table([words["quality"], words["wall"], words["loss"], words["of"]], rows)


def _transfer(words: dict[str, str]) -> str:
    """What a tuned encoder reaches seed by seed, and how fast each side is as it comes."""
    rows = []
    for name, sides in _sided("transfer, figures", "bf16"):
        for side, row in sides.items():
            said = {"danlu": "danlu", "trainer": "transformers Trainer"}.get(side, words["lora"])
            first = words["side by side"].format(set=words.get(name, name), side=said, seeds=len(row["runs"]))
            rows.append([first, f"{row['figure']:.3f}", "", "", ""])
    for name, sides in _sided("transfer", "defaults"):
        for side, row in sides.items():
            said = "danlu" if side == "danlu" else "transformers Trainer"
            times = sides["danlu"]["examples_per_second"] / row["examples_per_second"]
            rows.append([words["as it comes"].format(set=name, side=said), f"{row['figure']:.3f}",
                         f"{row['examples_per_second']:.0f}", "" if side == "danlu" else f"{times:.2f}×",
                         f"{row['mb']:,}"])  # fmt: skip
    head = [words[each] for each in ("tuned encoder", "measured on", "each second", "faster", "peak")]
    return _table(head, rows) if rows else ""


def _sided(script: str, way: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, sides) of the entries of a script's newest results whose name ends so."""
    for name, sides in results.newest(script).items():
        if name.endswith(f" {way}"):
            yield name.removesuffix(f" {way}"), sides


_FASTER = "danlu_is_faster_by", "growing_is_faster_by"


def _pictures(words: dict[str, str]) -> str:
    rows = []
    for way, said in (("bf16", "precise"), ("defaults", "usual")):
        for model, found in _sided("pictures", way):
            for side, row in found["sides"].items():
                faster = [f"{row[key]:.2f}×" if key in row else "" for key in _FASTER]
                name = words[said].format(model=words[model], side=words["growing"] if "growing" in side else side)
                rows.append([name, f"{row['pictures_per_second']:.0f}", *faster, f"{row['mb']:,}"])
    head = [words[each] for each in ("pictures", "pictures a second", "faster", "growing is", "peak")]
    return _table(head, rows) if rows else ""


def _door(words: dict[str, str]) -> str:
    found = results.newest("front_door")
    rows = [[words["help"].format(name=name), f"{value:,.0f}"] for name, value in found.get("help", {}).items()]
    rows += [[words["encode"].format(name=name), f"{value:.1f}"] for name, value in found.get("encode", {}).items()]
    return _table([words["door"], ""], rows) if rows else ""


def _plan(words: dict[str, str]) -> str:
    """The whole of each recipe, and its trainings."""
    found = {name: row for name, row in results.newest("forecast").items() if isinstance(row, dict) and "total" in row}
    rows = [
        [name if stage == "total" else f"{name}: {stage}", f"{row['seconds_forecast']:.0f}", f"{row['seconds']:.0f}",
         f"{row['mb_forecast']:,}", f"{row['mb']:,}"]
        for name, stages in found.items() for stage, row in stages.items() if stage in ("pretrain", "finetune", "total")
    ]  # fmt: skip
    head = [words[name] for name in ("plan", "said", "took", "size", "took")]
    return _table(head, rows) if rows else ""


def scale(language: str) -> str:
    """What several processes took beside their forecast, and what their checkpoints cost."""
    words = WORDS[language]
    made = [table(words) for table in (_ranks, _saving)]
    found = results.newest("ranks") or results.newest("saving")
    return "\n\n".join([text for text in made if text] + ([_place(words, found, "../../../")] if found else []))


def _ranks(words: dict[str, str]) -> str:
    rows = []
    for row in results.newest("ranks").get("rows", []):
        name = words[row["parallel"]].format(ranks=row["ranks"]) if row["ranks"] > 1 else "1"
        parts = " + ".join(f"{value:.2f}" for value in row["parts_forecast"].values())
        mega = {key: row[key] / 1e6 for key in ("bytes", "bytes_forecast")}
        rows.append([
            name, f"{row['seconds']:.2f} s", _beside(row["seconds_forecast"], row["seconds"], ".2f") + f" = {parts}",
            f"{mega['bytes']:,.0f} MB", _beside(mega["bytes_forecast"], mega["bytes"], ",.0f"),
        ])  # fmt: skip
    head = [
        words["ranks"],
        words["one"],
        f"{words['foretold']} ({words['parts']})",
        words["largest"],
        words["foretold"],
    ]
    return _table(head, rows) if rows else ""


def _beside(said: float, took: float, form: str) -> str:
    """A forecast, and how far it is off."""
    return f"{said:{form}} ({said / took - 1:+.0%})"


def _saving(words: dict[str, str]) -> str:
    found = results.newest("saving")
    if not found:
        return ""
    head = [words["saved"].format(ranks=found["ranks"]), words["trained"].format(steps=found["steps"])]
    rows = [
        [words[way], f"{seconds:.1f}", *_added(found, way)] for way, seconds in found["seconds"].items()
    ]  # fmt: skip
    return _table([*head, words["each"], words["minute"]], rows)


def _added(found: dict[str, Any], way: str) -> list[str]:
    if way not in found["of_one"]:
        return ["", ""]
    return [f"{found['of_one'][way]:.2f}", f"{found['share_of_a_minute'][way]:.1%}"]


def _machine(words: dict[str, str]) -> str:
    found = results.newest("training_step") or results.newest("time_to_quality")
    return _place(words, found, "") if found else ""


def _place(words: dict[str, str], found: dict[str, Any], root: str) -> str:
    """On which machine, and where the rest stands."""
    links = {"file": f"{root}benchmarks/results/{found['file']}", "how": f"{root}benchmarks/README.md"}
    return words["on"].format(**found["machine"], **links)


def injected(text: str, tables: str) -> str:
    """A README with the tables between its marks; ValueError where it has none."""
    before, opened, rest = text.partition(OPEN)
    _, closed, after = rest.partition(CLOSE)
    if not (opened and closed):
        raise ValueError(f"the marks {OPEN} and {CLOSE} are not there")
    return f"{before}{OPEN}\n{tables}\n{CLOSE}{after}"


def stale() -> dict[Path, str]:
    """Pages that differ from the results, and what they should be."""
    made = [(path, page(language)) for language, path in READMES.items()]
    made += [(path, scale(language)) for language, path in SCALES.items() if scale(language)]
    wanted = {path: injected(path.read_text("utf-8"), tables) for path, tables in made}
    return {path: text for path, text in wanted.items() if path.read_text("utf-8") != text}


if __name__ == "__main__":
    different = stale()
    if "--check" in sys.argv:
        sys.exit(
            f"python benchmarks/tables.py writes them again: {[path.name for path in different]}" if different else 0
        )
    for path, text in different.items():
        path.write_text(text, "utf-8")
