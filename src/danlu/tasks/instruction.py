"""Learn to answer: prompt/completion pairs and chats, with the loss on the answer only."""

import json

from danlu.modalities.chat import encode_chat
from danlu.tasks.language_modeling import LanguageModeling
from danlu.tasks.task import Example, Row


class Instruction(LanguageModeling):
    """Supervised fine-tuning. Rows hold `messages` (rendered by the one chat template) or `prompt` and `completion`."""

    unsupervised = False
    known_as = ()  # type: ignore[assignment]
    stock = ()  # type: ignore[assignment]  # the class is the language model's
    long = "drop"  # an answer without its question, or without its end, teaches the wrong thing

    def encode(self, row: Row) -> Example:
        if row.get("messages"):
            messages = json.loads(row["messages"]) if isinstance(row["messages"], str) else row["messages"]
            ids, mask = encode_chat(self.processor, messages, reply=False)
        else:
            end = self.processor.end_id
            prompt = [end, *self.processor.encode(row["prompt"])]
            answer = [*self.processor.encode(row["completion"]), end]
            ids, mask = prompt + answer, [0] * len(prompt) + [1] * len(answer)
        return {"input_ids": ids, "loss_mask": mask}
