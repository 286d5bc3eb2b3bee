"""Inference with Unsloth: a streamed answer, a batch of answers, and a conversation that goes on.

python examples/chat.py demo/SmolLM2-135M-Instruct
"""

# The one line more:
from patcher import patch_for_mac

patch_for_mac()

import argparse

from unsloth import FastLanguageModel
from transformers import TextStreamer

parser = argparse.ArgumentParser()
parser.add_argument("model", nargs="?", default="demo/SmolLM2-135M-Instruct")
parser.add_argument("--tokens", type=int, default=48)
options = parser.parse_args()

model, tokenizer = FastLanguageModel.from_pretrained(options.model, max_seq_length=512, load_in_4bit=False)
FastLanguageModel.for_inference(model)


def encoded(chats: list[list[dict[str, str]]]):
    """The chats as one batch, padded on the left, on the GPU."""
    texts = [tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False) for chat in chats]
    tokenizer.padding_side = "left"
    return tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to("cuda")


chat = [{"role": "user", "content": "What is the capital of France?"}]
print("streamed: ", end="")
streamer = TextStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
inputs = encoded([chat])
tokens = model.generate(**inputs, streamer=streamer, max_new_tokens=options.tokens, do_sample=False)

answer = tokenizer.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
chat += [{"role": "assistant", "content": answer}, {"role": "user", "content": "And of Italy?"}]
questions = [chat, [{"role": "user", "content": "Name three colors."}], [{"role": "user", "content": "Say hello."}]]
inputs = encoded(questions)
tokens = model.generate(**inputs, max_new_tokens=options.tokens, do_sample=True, temperature=0.7, min_p=0.1)
for question, text in zip(questions, tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :]), strict=True):
    print(f"question: {question[-1]['content']}")
    print(f"answer:   {text.split(tokenizer.eos_token)[0].strip()}")
